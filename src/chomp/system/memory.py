"""How this process's allocator treats memory that is freed."""

import ctypes

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Have freed memory stay with the process, for its next allocation; say whether that works.

    XLA's programs for CPUs allocate their scratch memory at each call. By default glibc gets it
    from the kernel and gives it back, page by page, which took a quarter of a small model's step.
    To be called before the process has threads, whose pools others would be given too. Works with
    glibc only.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One pool for all threads: the others take what is large from the kernel whatever is set.
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: -1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
