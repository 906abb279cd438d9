"""Names given on the command line -> audio files."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit
from urllib.request import url2pathname

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".aif", ".aiff", ".aifc", ".wma",
    ".wv", ".au", ".snd", ".caf", ".w64", ".rf64", ".ape", ".mka", ".mpc", ".tta", ".ac3", ".mp2", ".m4b", ".3gp",
    ".spx", ".webm",
)  # fmt: skip
SHOWN_SUFFIXES = 6


def files(names: Iterable[str], skipped: Counter[str] | None = None) -> Iterator[str]:
    """Expand folders (recursively, sorted), glob patterns, file:// addresses, and `-`: names from standard input.

    Those are separated by NUL characters, as by `find -print0`, or else by line ends. Names without a match are passed
    on, so that the caller reports them. `skipped` is as in `iter_audio_files`.
    """
    for name in names:
        matches: Iterable[str] = [name]
        if name == "-":
            text = sys.stdin.read() if sys.stdin else ""
            matches = filter(None, text.split("\0") if "\0" in text else text.splitlines())
        elif name.startswith("file://"):
            matches = [url2pathname(urlsplit(name).path)]
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True)) or [name]
        for match in matches:
            paths = iter_audio_files(match, skipped) if os.path.isdir(match) else iter(())
            yield next(paths, match)  # a folder without audio files, or a file
            yield from paths


def iter_audio_files(folder: str, skipped: Counter[str] | None = None) -> Iterator[str]:
    """The audio files below a folder: its own first, then those of its subfolders, each sorted by name.

    Symbolic links to folders are followed, but each folder is visited once; hidden files are skipped. The name of an
    unreadable folder is passed on, so that the caller reports it. `skipped` counts the suffixes of other files,
    but not musicclass's own journals.
    """
    visited: set[str] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        if (target := os.path.realpath(current)) in visited:
            continue
        visited.add(target)
        unreadable: list[OSError] = []
        _, subfolders, names = next(os.walk(current, onerror=unreadable.append), (current, [], []))
        if unreadable:
            yield current
        for name in sorted(name for name in names if not name.startswith(".")):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in AUDIO_SUFFIXES:
                yield os.path.join(current, name)
            elif skipped is not None and not suffix.startswith(".journal"):  # of a table or of tags
                skipped[suffix or "without suffix"] += 1
        visible = (name for name in subfolders if not name.startswith("."))
        pending += sorted((os.path.join(current, name) for name in visible), reverse=True)


def describe_skipped(skipped: Counter[str]) -> str:
    """Such as "skipped by suffix: 12 .jpg, 1 .dsf"."""
    shown = [f"{n:,} {suffix}" for suffix, n in skipped.most_common(SHOWN_SUFFIXES)]
    return f"skipped by suffix: {', '.join([*shown, *['…'] * (len(skipped) > SHOWN_SUFFIXES)])}"


def unescape_path(path: str) -> str:
    """The path on disk for a path in a table, where undecodable bytes are written as \\udcXX."""
    if os.path.exists(path):
        return path
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda match: chr(int(match[1], 16)), path)
