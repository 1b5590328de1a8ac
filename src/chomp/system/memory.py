"""How this process's allocator treats memory that is freed."""

import ctypes

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have memory that the main thread frees stay with the process; say whether that works.

    XLA's programs for CPUs allocate their scratch memory at each call. By default glibc gets it
    from the kernel and gives it back, page by page, which took a quarter of a small model's step.
    It holds for the pool of the main thread. One pool for all threads would do without
    `compute_in_calling_thread`, but the compiler's threads wait for each other at its lock: half
    as much time again. Works with glibc only.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    settings = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def compute_in_calling_thread() -> None:
    """Have JAX run a CPU's programs in the thread that calls them, whose memory they then use.

    Works before JAX has devices. Programs of several devices have threads of their own still.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
