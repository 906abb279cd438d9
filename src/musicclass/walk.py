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
            yield from files(line for line in map(str.strip, sys.stdin) if line and line != "-")
        elif os.path.isdir(name):
            yield from _below(name)
        elif glob.has_magic(name) and not os.path.exists(name):
            yield from files(sorted(glob.glob(name, recursive=True)) or [glob.escape(name)])
        else:
            yield name


def _below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield os.path.join(place, name)
