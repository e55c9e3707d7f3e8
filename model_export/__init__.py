"""Exports: the network as a file that another engine runs, and the proof that it still says the same."""
