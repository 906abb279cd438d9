"""Files that aren't on a local disk: s3://bucket/folder and the other addresses that Arrow knows (gs, hdfs, file)."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from typing import IO, Any

from musicclass.datasets import AUDIO_SUFFIXES
from musicclass.errors import DecodeError, LibraryError, require

SCHEME = "://"
AT_ONCE = 1 << 22  # bytes asked for in one request


def is_remote(name: str) -> bool:
    """Whether a name is an address such as s3://bucket/folder."""
    return SCHEME in name and not os.path.lexists(name)


def look_at(address: str) -> Iterator[tuple[str, int, int]]:
    """The audio files below an address: their addresses, sizes in bytes, times of modification in ns (-1: not known).

    Raises LibraryError when it can't be listed.
    """
    fs = require("pyarrow.fs", "library")
    try:
        system, top = _place(address)
        found = system.get_file_info(top)
        if found.type == fs.FileType.NotFound:
            raise LibraryError(f"{address}: there is nothing at this address")
        waiting = [top]
        while waiting:  # folder by folder: a whole bucket's list would not fit into memory
            here = waiting.pop()
            listed = system.get_file_info(fs.FileSelector(here)) if found.type == fs.FileType.Directory else [found]
            folders = []
            for info in sorted(listed, key=lambda info: str(info.path)):
                hidden = os.path.basename(info.path).startswith(".")
                if info.type == fs.FileType.Directory and not hidden:
                    folders.append(info.path)
                elif not hidden and os.path.splitext(info.path)[1].lower() in AUDIO_SUFFIXES:
                    yield _address(address, info.path), info.size or 0, info.mtime_ns or -1
            waiting += reversed(folders)
    except OSError as error:
        raise LibraryError(f"{address}: can't be listed ({error})") from None


def open_file(address: str) -> IO[bytes]:
    """A file at an address, to be read and sought in. Raises DecodeError when it can't be opened."""
    try:
        system, place = _place(address)
        raw = io.BufferedReader(system.open_input_file(place), AT_ONCE)
        named: IO[bytes] = _Named(raw, address)  # type: ignore[assignment]
        return named
    except OSError as error:
        raise DecodeError(f"{address}: can't be opened ({error}); check the address and your rights") from None


class _Named:
    """A file with the name that messages call it by."""

    def __init__(self, file: IO[bytes], name: str):
        self.file, self.name = file, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Named:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


# An address is scheme://host/path?settings; in its path, % and ? stand as %25 and %3F. Arrow calls a file of a bucket
# bucket/path, and one of another system /path.
BUCKETS = ("s3", "gs", "gcs")


def _split(address: str) -> tuple[str, str, str, str]:
    scheme, _, rest = address.partition(SCHEME)
    place, _, settings = rest.partition("?")
    host, slash, path = place.partition("/")
    return scheme, host, slash + path.rstrip("/").replace("%3F", "?").replace("%25", "%"), settings


def _place(address: str) -> tuple[Any, str]:
    """Arrow's file system and path of an address."""
    scheme, host, path, settings = _split(address)
    return _system(scheme, host, settings), host + path if scheme in BUCKETS else path or "/"


def _address(like: str, place: str) -> str:
    """The address of another file or folder of the same system."""
    scheme, host, _, settings = _split(like)
    path = place.replace("%", "%25").replace("?", "%3F")
    start = "" if scheme in BUCKETS else host
    return f"{scheme}{SCHEME}{start}{path}{'?' * bool(settings)}{settings}"


@functools.lru_cache(maxsize=8)
def _system(scheme: str, host: str, settings: str) -> Any:
    fs = require("pyarrow.fs", "library")
    try:
        system, _ = fs.FileSystem.from_uri(f"{scheme}{SCHEME}{host}/x{'?' * bool(settings)}{settings}")
        return system
    except (ValueError, TypeError) as error:
        raise LibraryError(f"{scheme}{SCHEME}{host}: no such kind of address ({error})") from None
