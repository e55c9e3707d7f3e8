"""Memory that loading a model has freed and the C library has kept."""

import ctypes


def give_back() -> None:
    """Return to the system what is free now. Takes some milliseconds; elsewhere than under glibc it does nothing."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
