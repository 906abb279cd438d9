"""What a person names on the command line -> the files meant."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator

from musicclass.datasets import AUDIO_SUFFIXES


def files(names: Iterable[str]) -> Iterator[str]:
    """Files as they are named, the audio files in folders (at any depth, sorted), in patterns, and, for `-`,
    named on the lines of standard input. A name that leads to nothing is passed on, to be reported."""
    for name in names:
        if name == "-":
            for line in sys.stdin or ():
                found = line.rstrip("\r\n")
                yield from _named(found) if found else ()
        elif glob.has_magic(name) and not os.path.lexists(name):
            for found in sorted(glob.glob(name, recursive=True)) or [name]:
                yield from _named(found)
        else:
            yield from _named(name)


def _named(name: str) -> list[str]:
    """A folder that can't be read, or holds no audio, is named itself, to be reported."""
    return (_below(name) or [name]) if os.path.isdir(name) else [name]


def _below(folder: str) -> list[str]:
    found: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda error: found.append(error.filename)):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                found.append(os.path.join(place, name))
    return found
