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


def _named(name: str) -> Iterator[str]:
    """A folder that holds no audio is named itself, to be reported."""
    if not os.path.isdir(name):
        yield name
        return
    empty = True
    for found in below(name):
        empty = False
        yield found
    if empty:
        yield name


def below(folder: str) -> Iterator[str]:
    """The audio files in a folder, at any depth, a folder's own before its sub-folders', each in order of name.

    Links to folders are followed, but no folder is entered twice; what is hidden is passed over. A folder
    that can't be read is named itself, to be reported.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield place
            continue
        folders = []
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in AUDIO_SUFFIXES:
                yield entry.path
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False
