"""Memory of CPU training."""
import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors instead of returning it.

    glibc gives every large block back to the system when it is freed and asks for it again in the
    next layer, which clears it page by page: nearly a third of the CPU time of a full-size
    training step. Kept, resident memory stays near its peak. Does nothing where there is no glibc.

    glibc takes at most 2^31 - 1 bytes as the limit: where more than 2 GiB at the end of the heap
    are free, they are returned as without this setting. A step that frees more at once, such as
    the graph of a large batch, is as slow as before.

    Returns:
        bool: Whether it is set.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    return mallopt is not None and all((
        mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 << 20)))
