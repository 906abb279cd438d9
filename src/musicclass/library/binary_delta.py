"""The bytes of an old file from those of its new version: parts to copy from there, and the few bytes that are missing.

It makes a change of tags reversible, byte for byte, in any format and without a copy of the file.
"""

from __future__ import annotations

import base64
import mmap
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Buffer = bytes | mmap.mmap
CHUNK = 32  # bytes that have to match for a part to be copied
SEARCH = 1 << 20  # bytes, in both directions, in which a match is searched
COMPARE = 1 << 16  # bytes compared at once

Step = tuple[int, int] | bytes  # offset and length of a part of the new file, or bytes


def diff(old: Buffer, new: Buffer) -> Iterator[Step]:
    """Parts of `new`, and bytes, whose concatenation is `old`."""
    at, expected, literal = 0, 0, bytearray()
    while at < len(old):
        chunk = old[at : at + CHUNK]
        start = new.find(chunk, expected, expected + SEARCH)
        if start < 0:
            start = new.find(chunk, max(0, expected - SEARCH), expected)
        length = _matching(old, at, new, start) if start >= 0 else 0
        if length < len(chunk):
            literal += chunk
            at += CHUNK
            continue
        while literal and start and literal[-1] == new[start - 1]:  # the match begins inside the chunk before
            literal.pop()
            start, length, at = start - 1, length + 1, at - 1
        if literal:
            yield bytes(literal)
            literal.clear()
        yield start, length
        at, expected = at + length, start + length
    if literal:
        yield bytes(literal)


def patch(steps: Iterable[Step], new: Buffer) -> Iterator[bytes]:
    """The old bytes, block by block."""
    for step in steps:
        if isinstance(step, bytes):
            yield step
        else:
            end = sum(step)
            yield from (new[start : min(start + SEARCH, end)] for start in range(step[0], end, SEARCH))


def to_json(steps: Iterable[Step]) -> list[Any]:
    """JSON-ready values."""
    return [base64.b64encode(zlib.compress(step)).decode() if isinstance(step, bytes) else step for step in steps]


def from_json(values: list[Any]) -> list[Step]:
    """The inverse of `to_json`. Raises ValueError, TypeError, IndexError or zlib.error for damaged values."""
    return [zlib.decompress(base64.b64decode(value)) if isinstance(value, str) else (int(value[0]), int(value[1]))
            for value in values]  # fmt: skip


def _matching(old: Buffer, at: int, new: Buffer, start: int) -> int:
    """The number of equal bytes from `at` in `old` and `start` in `new`."""
    length = 0
    while True:
        a, b = old[at + length : at + length + COMPARE], new[start + length : start + length + COMPARE]
        size = min(len(a), len(b))
        if not size:
            return length
        different = np.frombuffer(a, np.uint8, size) != np.frombuffer(b, np.uint8, size)
        if different.any():
            return length + int(different.argmax())
        length += size
