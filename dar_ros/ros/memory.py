"""What the C library does with the memory of messages that are gone."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 32 * 2**20  # bytes; the most that every glibc takes as its mmap threshold
HEAP = 256 * 2**20  # bytes of free memory at the heap's end that are not given back


def keep_freed_memory():
    """
    Have glibc reuse the memory of images and clouds instead of returning it to the system.

    Otherwise each buffer of megabytes is new, zeroed memory, page by page: half of what the node
    takes for its messages. Returns whether the C library knows the setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # not glibc
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT) and mallopt(M_TRIM_THRESHOLD, HEAP))
