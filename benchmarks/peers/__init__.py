"""LitServe and BentoML around the same work, for `dap bench service`; peers.txt is the environment they run in."""
