"""The C allocator's habit of handing freed memory back at once, turned off while many images are decoded one by one.

glibc returns a freed block of a megabyte to the system and asks for it again for the next image: some 500 page faults
each, a fifth of the time that looking at an image of 512 px takes.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
KEPT_BYTES = 128 << 20  # freed memory that stays with the process
LARGEST_BYTES = 32 << 20  # blocks above it are the system's, as before; glibc allows no more
PAD_BYTES = 16 << 20


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to KEPT_BYTES that it freed; returns whether its C library knows how."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no such thing, and no such habit
        return False
    wanted = {M_MMAP_THRESHOLD: LARGEST_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: PAD_BYTES}
    return all(mallopt(key, value) == 1 for key, value in wanted.items())
