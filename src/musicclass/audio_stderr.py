"""Silence for C libraries that print to C's `stderr`, which Python's own stderr doesn't use."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_original: int | None = None  # C's stderr, while it is replaced


@contextlib.contextmanager
def quiet_c_libraries() -> Iterator[None]:
    """Discard what C libraries print, such as libmpg123's notes about damage; in all threads."""
    global _users, _original
    streams = _streams()
    with _lock:
        _users += 1
        if streams and _users == 1:
            _original = streams[0].value
            streams[0].value = streams[1]
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if streams and not _users:
                streams[0].value = _original


@functools.cache
def _streams() -> tuple[ctypes.c_void_p, int] | None:
    """C's `stderr`, and a stream to the null device; None where it isn't a variable, as with musl and on Windows."""
    with contextlib.suppress(ValueError, OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        name = "__stderrp" if sys.platform == "darwin" else os.confstr("CS_GNU_LIBC_VERSION") and "stderr"
        library.fopen.restype = ctypes.c_void_p
        if null := library.fopen(os.devnull.encode(), b"w"):
            return ctypes.c_void_p.in_dll(library, name or ""), null
    return None
