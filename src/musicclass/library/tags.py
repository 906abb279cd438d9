"""Genres in the tags of files: read, written into a copy that takes the file's place, and taken back.

A change is in the journal before the file is replaced. The journal holds what is needed to make the very bytes of
before from those of after, so `undo` brings them back, unless someone has changed the file since.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import mmap
import os
import shutil
import tempfile
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

from musicclass.audio import FORMATS
from musicclass.bundle import Bundle, load_bundle
from musicclass.errors import ConfigError, LibraryError, require
from musicclass.library import delta
from musicclass.library.journal import Journal, Row
from musicclass.library.run import OK, Options, hear, journal_path, look_at


class TagError(Exception):
    """This file's tags can't be read, or must not be written."""


class Mode(Enum):
    """What happens to genres that are there already."""

    only_missing = "only missing"
    append = "append"
    replace = "replace"


@dataclass(frozen=True)
class Change:
    """What is to become of a file's genres."""

    path: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def read_genres(path: str) -> tuple[str, ...]:
    """The genres in a file's tags. Raises TagError where none can be read or written."""
    file = _open(path)
    found = _get(file)
    if not found and type(file).__name__ == "MP3":
        from mutagen.apev2 import APEv2

        with contextlib.suppress(Exception):  # an mp3 may have both kinds of tags
            found = [str(value) for value in APEv2(path).get("Genre", ())]
    return tuple(found)


def plan(path: str, before: tuple[str, ...], genres: Sequence[str], mode: Mode) -> Change | None:
    """The change that a mode makes of a file's genres and those that it was told; None where there is nothing to do."""
    if mode is Mode.only_missing and before:
        return None
    known = {genre.casefold() for genre in before}
    added = tuple(genre for genre in genres if genre.casefold() not in known)
    after = before + added if mode is Mode.append else tuple(genres)
    return Change(path, before, after) if after and after != before else None


def write(change: Change, journal: IO[str], keep_time: bool = False) -> None:
    """Change a file's genres. Raises TagError, with the file as it was, where that isn't safe."""
    target = os.path.realpath(change.path)  # a link stays a link
    if not os.access(target, os.W_OK):
        raise TagError(f"{change.path}: may not be written to; change its rights if it should be")
    before = os.stat(target)
    with _copy_of(target) as copy:
        _set(copy, change.after)
        if audio_hash(copy) != audio_hash(target):
            raise TagError(f"{change.path}: writing tags would change its audio; nothing was written")
        entry = {
            "path": change.path, "before": change.before, "after": change.after, "modified": before.st_mtime_ns,
            "old": _sha256(target), "new": _sha256(copy), "delta": _delta(target, copy),
        }  # fmt: skip
        if os.stat(target).st_mtime_ns != before.st_mtime_ns:
            raise TagError(f"{change.path}: was changed by another program just now; nothing was written")
        print(json.dumps(entry), file=journal, flush=True)
        os.fsync(journal.fileno())
        if keep_time:
            os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(copy, target)


def undo(journal: Path) -> Iterator[tuple[str, str]]:
    """Take back the changes in a journal, the last first. Yields each path, and "" or why it is left as it is.

    Raises LibraryError when it is no journal.
    """
    for entry in reversed(_entries(journal)):
        try:
            yield entry["path"], _take_back(entry)
        except (OSError, ValueError) as error:
            yield entry["path"], f"can't be restored ({error})"


def load_map(path: Path | None, genres: Sequence[str]) -> dict[str, str]:
    """The names to write for genres, from a TOML file of `genre = "Name"`; a genre that it lacks keeps its own.

    Raises ConfigError for a file that isn't such a one, or a genre that the model doesn't know.
    """
    if path is None:
        return {}
    try:
        names = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as TOML: {error}") from None
    if strange := sorted(set(names) - set(genres)):
        raise ConfigError(f"{path}: the model doesn't know {', '.join(strange)}; it knows {', '.join(genres)}")
    if wrong := [genre for genre, name in names.items() if not isinstance(name, str) or not name.strip()]:
        raise ConfigError(f'{path}: {wrong[0]} needs a name, such as {wrong[0]} = "{wrong[0].title()}"')
    return names


def audio_hash(path: str) -> str:
    """SHA-256 of the coded audio in a file, without its tags. Raises TagError where it can't be read."""
    import av
    import av.error

    digest = hashlib.sha256()
    try:
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        with av.open(path, options=options, metadata_errors="ignore") as container:
            for packet in container.demux(container.streams.audio[0]):
                digest.update(bytes(packet))
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise TagError(f"{path}: can't be read ({error})") from None
    return digest.hexdigest()


def _open(path: str) -> Any:
    mutagen = require("mutagen", "tags")
    try:
        file = mutagen.File(path)
        if type(file).__name__ == "MP3":
            from mutagen.id3 import ID3, ID3NoHeaderError

            with contextlib.suppress(ID3NoHeaderError):
                file.tags = ID3(path, translate=False)  # frames of ID3v2.3 stay what they are
    except Exception as error:  # it meets bytes that nobody has foreseen
        raise TagError(f"{path}: its tags can't be read ({error})") from None
    if file is None or not hasattr(file, "add_tags"):
        raise TagError(f"{path}: no tags of a kind that genres can be written to")
    return file


# How a format keeps genres, by the class of mutagen's tags: the key, or None for ID3's frames.
KEYS = {"MP4Tags": "\xa9gen", "APEv2": "Genre", "ASFTags": "WM/Genre"}


def _kind(tags: Any) -> str | None:
    if any(base.__name__ in ("ID3", "ID3Tags") for base in type(tags).__mro__):
        return None
    return KEYS.get(type(tags).__name__, "genre")


def _get(file: Any) -> list[str]:
    if file.tags is None:
        return []
    key = _kind(file.tags)
    if key is None:
        return [genre for frame in file.tags.getall("TCON") for genre in frame.genres if genre]
    return [str(value) for value in file.tags.get(key, ()) if str(value)]


def _set(path: str, genres: Sequence[str]) -> None:
    file = _open(path)
    try:
        if file.tags is None:
            file.add_tags()
        key = _kind(file.tags)
        if key is not None:
            file.tags[key] = list(genres)
            file.save()
            return
        from mutagen.id3 import TCON

        file.tags.setall("TCON", [TCON(encoding=3, text=list(genres))])
        version = 3 if file.tags.version[:2] in ((2, 2), (2, 3)) else 4
        if version == 3:  # which has neither UTF-8 nor, by its letter, several values: others write them so, too
            file.tags.setall("TCON", [TCON(encoding=1, text=list(genres))])
            file.tags.update_to_v23()
            file.tags.save(path, v2_version=3, v23_sep=None)
        else:
            file.save()
    except Exception as error:
        raise TagError(f"{path}: its tags can't be written ({error})") from None


@contextlib.contextmanager
def _copy_of(path: str) -> Iterator[str]:
    """A copy beside the file, with its rights and times; gone at the end, unless it was moved."""
    folder, name = os.path.split(path)
    handle, copy = tempfile.mkstemp(dir=folder, prefix=".musicclass-", suffix=os.path.splitext(name)[1])
    os.close(handle)
    try:
        shutil.copyfile(path, copy)
        shutil.copystat(path, copy)
        with contextlib.suppress(OSError, AttributeError):
            os.chown(copy, os.stat(path).st_uid, os.stat(path).st_gid)
        yield copy
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


@contextlib.contextmanager
def _bytes_of(path: str) -> Iterator[delta.Buffer]:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            yield view


def _delta(old: str, new: str) -> list[Any]:
    with _bytes_of(old) as a, _bytes_of(new) as b:
        return delta.pack(delta.steps(a, b))


def _take_back(entry: dict[str, Any]) -> str:
    target = os.path.realpath(entry["path"])
    now = _sha256(target)
    if now == entry["old"]:
        return "is as it was"
    if now != entry["new"]:
        return "was changed since; left as it is"
    with _copy_of(target) as copy:
        digest = hashlib.sha256()
        with _bytes_of(target) as new, open(copy, "wb") as file:
            for part in delta.apply(delta.unpack(entry["delta"]), new):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != entry["old"]:
            return "can't be restored: its entry in the journal is damaged"
        os.utime(copy, ns=(entry["modified"], entry["modified"]))
        os.replace(copy, target)
    return ""


def _entries(journal: Path) -> list[dict[str, Any]]:
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LibraryError(f"{journal}: can't be read ({error})") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not {"path", "old", "new", "delta", "modified"} <= set(entry):
                raise ValueError("something is missing")
            delta.unpack(entry["delta"])
        except (ValueError, TypeError, IndexError, zlib.error) as error:
            if number == len(lines) and number > 1:
                break  # cut off while it was written: the file had not been replaced yet
            raise LibraryError(f"{journal}: line {number} is no entry of a journal of tags ({error})") from None
        entries.append(entry)
    return entries


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Tagging:
    """What is to be written."""

    mode: Mode = Mode.only_missing
    top: int = 1  # so many genres
    min_confidence: float | None = None  # by default the model's own
    names: dict[str, str] = field(default_factory=dict)  # the user's, for the model's


def propose(
    folders: Iterable[str], tagging: Tagging, options: Options, table: Path | None = None
) -> Iterator[tuple[str, Change | str]]:
    """Hear the files in `folders` whose genres would change; yields each path with its change, or why there is none.

    With `table`, answers are taken from that library's journal, and kept there.
    """
    bundle = load_bundle(options.model)
    before: dict[str, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = table or Path(folder) / "answers"
        with Journal(journal_path(out), options.settings(bundle)) as journal:
            found = list(look_at(folders))
            for path, _, _ in found:
                try:
                    genres = read_genres(path)
                except TagError as error:
                    yield path, str(error)
                    continue
                if tagging.mode is Mode.only_missing and genres:
                    yield path, f"{path}: has {', '.join(genres)}"
                    continue
                before[path] = genres
            journal.see(item for item in found if item[0] in before)
            known = [(row["path"], row) for row in journal.rows()]
            for path, row in itertools.chain(known, hear(journal, options, bundle)):
                yield path, proposal(path, row, before[path], bundle, tagging)


def proposal(path: str, row: Row, before: tuple[str, ...], bundle: Bundle, tagging: Tagging) -> Change | str:
    """The change of a file's genres that follows from its row, or why there is none."""
    if row["status"] != OK:
        return str(row["error"])
    least = bundle.confidence.min_confidence if tagging.min_confidence is None else tagging.min_confidence
    if row["confidence"] < least:
        return f"{path}: unknown ({row['best_guess']}, {row['confidence']:.0%} sure)"
    ranked = sorted(bundle.genres, key=lambda genre: -row[f"p_{genre}"])[: tagging.top]
    told = list(dict.fromkeys(tagging.names.get(genre, genre) for genre in ranked))
    return plan(path, before, told, tagging.mode) or f"{path}: has {', '.join(before)}"
