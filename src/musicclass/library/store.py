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


def is_remote(name: str) -> bool:
    """Whether a name is an address such as s3://bucket/folder."""
    return SCHEME in name and not os.path.lexists(name)


def look_at(address: str) -> Iterator[tuple[str, int, int]]:
    """The audio files below an address: their addresses, sizes in bytes, times of modification in ns (-1: not known).

    Raises LibraryError when it can't be listed.
    """
    fs = require("pyarrow.fs", "library")
    scheme, _, rest = address.partition(SCHEME)
    place, _, query = rest.partition("?")  # settings of the store, such as ?region=eu-west-1
    try:
        system, top = _system(scheme, query), place.rstrip("/")
        if system.get_file_info(top).type == fs.FileType.NotFound:
            raise LibraryError(f"{address}: there is nothing at this address")
        waiting = [top]
        while waiting:  # folder by folder: a whole bucket's list would not fit into memory
            here = waiting.pop()
            listed = system.get_file_info(fs.FileSelector(here) if here != top or _is_folder(system, top) else [here])
            folders = []
            for info in sorted(listed, key=lambda info: str(info.path)):
                hidden = os.path.basename(info.path).startswith(".")
                if info.type == fs.FileType.Directory and not hidden:
                    folders.append(info.path)
                elif not hidden and os.path.splitext(info.path)[1].lower() in AUDIO_SUFFIXES:
                    yield _address(scheme, info.path, query), info.size or 0, info.mtime_ns or -1
            waiting += reversed(folders)
    except OSError as error:
        raise LibraryError(f"{address}: can't be listed ({error})") from None


def open_file(address: str) -> IO[bytes]:
    """A file at an address, to be read and sought in. Raises DecodeError when it can't be opened."""
    scheme, _, rest = address.partition(SCHEME)
    place, _, query = rest.partition("?")
    try:
        raw = _system(scheme, query).open_input_file(place)
        buffered: IO[bytes] = _Named(io.BufferedReader(raw, 1 << 20), address)  # type: ignore[assignment]
        return buffered
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


@functools.lru_cache(maxsize=8)
def _system(scheme: str, query: str) -> Any:
    fs = require("pyarrow.fs", "library")
    try:
        system, _ = fs.FileSystem.from_uri(f"{scheme}{SCHEME}bucket/x{'?' * bool(query)}{query}")
        return system
    except (ValueError, TypeError) as error:
        raise LibraryError(f"{scheme}{SCHEME}: no such kind of address ({error})") from None


def _is_folder(system: Any, place: str) -> bool:
    fs = require("pyarrow.fs", "library")
    return bool(system.get_file_info(place).type == fs.FileType.Directory)


def _address(scheme: str, place: str, query: str) -> str:
    return f"{scheme}{SCHEME}{place}{'?' * bool(query)}{query}"
