"""Exports: the network as a file that another engine runs, and the proof that it still says the same."""

import dap.engines  # noqa: F401 - ONNX Runtime's telemetry is off before anything here loads it
