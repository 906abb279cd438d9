"""The genre in ID3 tags and in chunks of RIFF and AIFF files; all other bytes of a tag stay as they are.

mutagen translates frames between versions of ID3, drops some, and rewrites ID3v1 in another encoding.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

PADDING = 1024  # bytes, in a tag that has to grow
HEADER = 10  # bytes, also of the footer
ID3V1_BYTES = 128


class DamagedTagError(Exception):
    """A tag can't be changed without risk for its other frames."""


def id3_size(start: bytes) -> int:
    """The size in bytes of the ID3v2 tag that begins with `start`; or 0."""
    if len(start) < HEADER or start[:3] != b"ID3" or start[3] not in (2, 3, 4) or max(start[6:10]) > 127:
        return 0
    return HEADER + _from_syncsafe(start[6:10]) + HEADER * bool(start[5] & 0x10 and start[3] == 4)


def set_id3_genres(tag: bytes, genres: Sequence[str], separator: str) -> bytes:
    """An ID3v2 tag with these genres, in its own version; an empty `tag` becomes one of version 2.4.

    `separator` joins the genres in versions before 2.4. The size changes only where the padding is too small. Raises
    DamagedTagError.
    """
    tag = tag or b"ID3\x04\0\0\0\0\0\0"
    version, flags = tag[3], tag[5]
    footer = HEADER * bool(flags & 0x10 and version == 4)
    body = tag[HEADER : len(tag) - footer]
    resync = version < 4 and bool(flags & 0x80)
    if resync:
        body = body.replace(b"\xff\0", b"\xff")
    start = _extended_header(body, version, flags)
    frames = list(_frames(body, start, version))
    end = frames[-1][2] if frames else start
    if body[end:].strip(b"\0"):
        raise DamagedTagError("its ID3 tag has bytes that aren't frames")
    name = b"TCO" if version == 2 else b"TCON"
    content = b"".join(body[first:last] for frame, first, last in frames if frame != name)
    before = next((first for frame, first, _ in frames if frame == name), end)
    at = sum(last - first for frame, first, last in frames if frame != name and first < before)
    content = body[:start] + content[:at] + _genre_frame(version, genres, separator) + content[at:]
    if resync:
        content = re.sub(rb"\xff(?=[\0\xe0-\xff])", b"\xff\0", content)
    size = len(tag) - HEADER - footer
    if not footer:
        content = content.ljust(size if len(content) <= size else len(content) + PADDING, b"\0")
    header = tag[:6] + _to_syncsafe(len(content))
    return header + content + (b"3DI" + header[3:] if footer else b"")


def _extended_header(body: bytes, version: int, flags: int) -> int:
    """The size of the extended header."""
    if version < 3 or not flags & 0x40:
        return 0
    if body[5 if version == 4 else 4] & (0x20 if version == 4 else 0x80):
        raise DamagedTagError("its ID3 tag has a checksum")
    return _from_syncsafe(body[:4]) if version == 4 else 4 + int.from_bytes(body[:4], "big")


def _frames(body: bytes, start: int, version: int) -> Iterator[tuple[bytes, int, int]]:
    """The name, first byte and end of each frame."""
    if version == 4:
        plain = list(_walk(body, start, 4, int.from_bytes))
        safe = list(_walk(body, start, 4, lambda size, _: _from_syncsafe(size)))
        ends = [frames[-1][2] if frames else start for frames in (safe, plain)]
        # iTunes wrote plain sizes. The right reading is the one after which only padding follows.
        yield from plain if body[ends[0] :].strip(b"\0") and not body[ends[1] :].strip(b"\0") else safe
    else:
        yield from _walk(body, start, version, int.from_bytes)


def _walk(
    body: bytes, at: int, version: int, to_int: Callable[[bytes, Literal["big"]], int]
) -> Iterator[tuple[bytes, int, int]]:
    n, header = (3, 6) if version == 2 else (4, HEADER)
    while re.fullmatch(rb"[A-Z][A-Z0-9 ]{2,3}", name := body[at : at + n]):
        end = at + header + to_int(body[at + n : at + 2 * n], "big")
        if end > len(body):
            return
        yield name, at, end
        at = end


def _genre_frame(version: int, genres: Sequence[str], separator: str) -> bytes:
    if not genres:
        return b""
    text = ("\0" if version == 4 else separator).join(genres)
    if version == 4:
        value = b"\x03" + text.encode()
        return b"TCON" + _to_syncsafe(len(value)) + b"\0\0" + value
    latin = all(ord(char) < 256 for char in text)
    value = b"\0" + text.encode("latin-1") if latin else b"\x01\xff\xfe" + text.encode("utf-16-le")
    if version == 2:
        return b"TCO" + len(value).to_bytes(3, "big") + value
    return b"TCON" + len(value).to_bytes(4, "big") + b"\0\0" + value


def _from_syncsafe(size: bytes) -> int:
    return sum((byte & 127) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=False))


def _to_syncsafe(size: int) -> bytes:
    if size >= 1 << 28:
        raise DamagedTagError("its ID3 tag is too large")
    return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def read_id3(path: str) -> bytes:
    """The ID3v2 tag at the start of a file, or b""."""
    with open(path, "rb") as file:
        size = id3_size(file.read(HEADER))
        file.seek(0)
        return file.read(size)


def read_id3v1(path: str) -> bytes:
    """The ID3v1 tag at the end of a file, or b""."""
    with open(path, "rb") as file:
        file.seek(max(0, os.stat(path).st_size - ID3V1_BYTES))
        tag = file.read()
    return tag if tag[:3] == b"TAG" and len(tag) == ID3V1_BYTES else b""


def set_id3v1_genre(path: str, number: int) -> None:
    """Set the last byte of an ID3v1 tag, the number of its genre; 255: none."""
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([number]))


def splice(path: str, start: int, end: int, content: bytes) -> None:
    """Replace a part of a file."""
    size = os.stat(path).st_size
    new = size + len(content) - (end - start)
    with open(path, "r+b") as file:
        file.truncate(max(size, new))
        if new != size:
            with mmap.mmap(file.fileno(), 0) as view:
                view.move(start + len(content), end, size - end)
        file.seek(start)
        file.write(content)
        file.truncate(new)


# Chunks of RIFF (wav) and IFF (aiff)


def find_chunk(path: str, *names: bytes) -> list[tuple[int, int]] | None:
    """The chunk along a path of names, such as LIST INFO IGNR: (offset, size in bytes) of it and of those around it."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        order = _order(view[:4])
        if not order:
            return None
        chain, at, end = [(0, _size(view, 0, order))], 12, len(view)
        for name in names:
            while at + 8 <= end:
                size = _size(view, at, order)
                if name in (view[at : at + 4].upper(), view[at + 8 : at + 12] if view[at : at + 4] == b"LIST" else b""):
                    break
                at += 8 + size + size % 2
            else:
                return None
            if at + 8 + size > len(view):
                return None
            chain.append((at, size))
            at, end = at + 12, at + 8 + size
        return chain


def read_chunk(path: str, chain: list[tuple[int, int]]) -> bytes:
    """The content of a chunk of `find_chunk`."""
    start, size = chain[-1]
    with open(path, "rb") as file:
        file.seek(start + 8)
        return file.read(size)


def write_chunk(path: str, chain: list[tuple[int, int]], content: bytes) -> None:
    """Replace the content of a chunk, and change the sizes of those around it."""
    start, size = chain[-1]
    padded = content + b"\0" * (len(content) % 2)
    end = min(start + 8 + size + size % 2, os.stat(path).st_size)
    change = len(padded) - (end - start - 8)
    with open(path, "rb") as file:
        order = _order(file.read(4))
    splice(path, start + 8, end, padded)
    with open(path, "r+b") as file:
        for offset, new in [*((at, length + change) for at, length in chain[:-1]), (start, len(content))]:
            file.seek(offset + 4)
            file.write(struct.pack(f"{order}I", new))


def _order(magic: bytes) -> str:
    return {b"RIFF": "<", b"RIFX": ">", b"FORM": ">"}.get(magic, "")


def _size(view: mmap.mmap, at: int, order: str) -> int:
    return int(struct.unpack(f"{order}I", view[at + 4 : at + 8])[0])
