"""Files in remote stores: s3://bucket/folder and the other addresses that Arrow knows (gs, hdfs, file).

An address is scheme://host/path?options, as in pyarrow.fs.FileSystem.from_uri; % and ? of a path are %25 and %3F.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterator
from typing import IO, Any

from musicclass.audio_files import AUDIO_SUFFIXES
from musicclass.errors import DecodeError, LibraryError, import_optional

REQUEST_BYTES = 1 << 22  # read with one request
ADDRESS = r"(?s)((?:s3|gs|gcs)://|.*?://[^/?]*)([^?]*)(\?.*)?"  # a bucket is part of the path


def is_remote(name: str) -> bool:
    """Whether a name is an address such as s3://bucket/folder."""
    return "://" in name and not os.path.lexists(name)


def scan(address: str) -> Iterator[tuple[str, int, int]]:
    """The audio files below an address: their addresses, sizes in bytes, times of modification in ns (-1: unknown).

    Raises LibraryError when it can't be listed.
    """
    fs = import_optional("pyarrow.fs", "library")
    try:
        system, path = _resolve(address)
        top = system.get_file_info(path)
        if top.type == fs.FileType.NotFound:
            raise LibraryError(f"{address}: not found; check the address")
        stack = [top]
        while stack:  # folder by folder: the list of a whole bucket may not fit into memory
            info = stack.pop()
            if info.type == fs.FileType.Directory:
                listing = system.get_file_info(fs.FileSelector(info.path))
                visible = (item for item in listing if not item.base_name.startswith("."))
                stack += sorted(visible, key=lambda item: (not item.is_file, item.path), reverse=True)
            elif info is top or os.path.splitext(info.path)[1].lower() in AUDIO_SUFFIXES:
                yield address_of(address, info.path), info.size or 0, info.mtime_ns or -1
    except OSError as error:
        raise LibraryError(f"{address}: can't be listed ({error}); check the address and its credentials") from None


def open_file(address: str) -> IO[bytes]:
    """A remote file, seekable; its `name` is the address. Raises DecodeError when it can't be opened."""
    try:
        system, path = _resolve(address)
        file: Any = _NamedReader(system.open_input_file(path), REQUEST_BYTES)
    except OSError as error:
        raise DecodeError(f"{address}: can't be opened ({error}); check the address and its credentials") from None
    file.name = address
    return file  # type: ignore[no-any-return]


class _NamedReader(io.BufferedReader):
    name = ""  # that of BufferedReader can't be set


def parse(address: str) -> tuple[str, str, str]:
    """The start of an address (scheme and host), Arrow's path, and its options."""
    start, path, options = re.fullmatch(ADDRESS, address).groups("")  # type: ignore[union-attr]  # see is_remote
    return start, path.replace("%3F", "?").replace("%25", "%"), options


def address_of(base: str, path: str) -> str:
    """The address of one of Arrow's paths in the file system of the address `base`."""
    start, _, options = parse(base)
    return start + path.replace("%", "%25").replace("?", "%3F") + options


def _resolve(address: str) -> tuple[Any, str]:
    """Arrow's file system and path of an address."""
    start, path, options = parse(address)
    bucket = path.partition("/")[0]
    return _file_system(f"{start}{bucket}/x{options}"), path.rstrip("/") or "/"


@functools.lru_cache(maxsize=8)
def _file_system(address: str) -> Any:
    fs = import_optional("pyarrow.fs", "library")
    try:
        return fs.FileSystem.from_uri(address)[0]
    except (ValueError, TypeError) as error:
        raise LibraryError(f"{address}: not a kind of address that Arrow knows ({error})") from None
