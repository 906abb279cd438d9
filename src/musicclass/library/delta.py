"""How to make the old bytes of a file from its new ones: parts to copy, and the few bytes that aren't there any more.

So that a change of tags can be taken back to the last bit, whatever the format, without a copy of the file.
"""

from __future__ import annotations

import base64
import mmap
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

Buffer = bytes | mmap.mmap
CHUNK = 32  # bytes that have to be found again for a part to count as moved
REACH = 1 << 20  # bytes ahead in which they are looked for
COMPARE = 1 << 16  # bytes compared at once

Step = tuple[int, int] | bytes  # offset and length in the new file, or bytes as they are


def steps(old: Buffer, new: Buffer) -> Iterator[Step]:
    """Parts of `new`, and bytes, that put together are `old`."""
    at, follows, kept = 0, 0, bytearray()
    while at < len(old):
        found = follows if old[at : at + CHUNK] == new[follows : follows + CHUNK] else _find(old, at, new, follows)
        length = _same(old, at, new, found) if found >= 0 else 0
        if length < min(CHUNK, len(old) - at):
            kept += old[at : at + CHUNK]
            at += CHUNK
            continue
        while kept and found and kept[-1] == new[found - 1]:  # the match began before the chunk did
            kept.pop()
            found, length, at = found - 1, length + 1, at - 1
        if kept:
            yield bytes(kept)
            kept.clear()
        yield found, length
        at, follows = at + length, found + length
    if kept:
        yield bytes(kept)


def apply(parts: list[Step], new: Buffer) -> Iterator[bytes]:
    """The old bytes, part by part."""
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            for start in range(part[0], part[0] + part[1], REACH):
                yield new[start : min(start + REACH, part[0] + part[1])]


def pack(parts: Iterator[Step]) -> list[Any]:
    """As JSON has it."""
    return [base64.b64encode(zlib.compress(part)).decode() if isinstance(part, bytes) else list(part) for part in parts]


def unpack(plain: list[Any]) -> list[Step]:
    """The inverse of `pack`. Raises ValueError, TypeError or zlib.error for what is none."""
    return [zlib.decompress(base64.b64decode(part)) if isinstance(part, str) else (int(part[0]), int(part[1]))
            for part in plain]  # fmt: skip


def _find(old: Buffer, at: int, new: Buffer, follows: int) -> int:
    chunk = old[at : at + CHUNK]
    found = new.find(chunk, follows, follows + REACH)
    return found if found >= 0 else new.find(chunk, max(0, follows - REACH), follows)


def _same(old: Buffer, at: int, new: Buffer, found: int) -> int:
    """How many bytes from `at` in `old` are those from `found` in `new`."""
    length = 0
    while True:
        ours, theirs = (x[i + length : i + length + COMPARE] for x, i in ((old, at), (new, found)))
        most = min(len(ours), len(theirs))
        if not most:
            return length
        differs = np.frombuffer(ours, np.uint8, most) != np.frombuffer(theirs, np.uint8, most)
        if differs.any():
            return length + int(differs.argmax())
        length += most
