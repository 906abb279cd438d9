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
import stat
import tempfile
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

from musicclass.audio import OPENING
from musicclass.bundle import Bundle, load_bundle
from musicclass.confidence import is_known
from musicclass.errors import ConfigError, LibraryError, require
from musicclass.files import file_hash, move, sync
from musicclass.library import delta
from musicclass.library.journal import Journal, Row
from musicclass.library.run import OK, Options, hear, journal_path, look_at
from musicclass.library.workers import Failure, Pool, Task

UNSAFE = "unsafe"  # a worker's word for what a TagError tells


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
    return tuple(found or _genres_elsewhere(path))


def _genres_elsewhere(path: str) -> list[str]:
    """Those that FFmpeg sees, as in the INFO chunk of a wav file, which mutagen doesn't read."""
    import av

    with contextlib.suppress(Exception), av.open(path, **OPENING) as container:
        found = {**container.streams.audio[0].metadata, **container.metadata}
        return [value for name, value in found.items() if name.casefold() == "genre" and value]
    return []


def plan(path: str, before: tuple[str, ...], genres: Sequence[str], mode: Mode) -> Change | None:
    """The change that a mode makes of a file's genres and those that it was told; None where there is nothing to do."""
    if mode is Mode.only_missing and before:
        return None
    known = {genre.casefold() for genre in before}
    added = tuple(genre for genre in genres if genre.casefold() not in known)
    after = before + added if mode is Mode.append else tuple(genres)
    return Change(path, before, after) if after and after != before else None


def write(change: Change, journal: IO[str], keep_time: bool = False, prepare: Task | None = None) -> None:
    """Change a file's genres. Raises TagError, with the file as it was, where that isn't safe.

    `prepare` makes the changed copy; it may do so in another process (see `preparing`).
    """
    target = os.path.realpath(change.path)  # a link stays a link
    if not os.access(target, os.W_OK):
        raise TagError(f"{change.path}: may not be written to; change its rights if it should be")
    before = os.stat(target)
    with _name_beside(target) as copy:
        order = {"path": change.path, "target": target, "copy": copy, "before": change.before, "after": change.after}
        entry = (prepare or prepare_copy)(json.dumps(order))
        if isinstance(entry, Failure):
            raise TagError(entry.error if entry.status == UNSAFE else f"{change.path}: {entry.error}")
        if os.stat(target).st_mtime_ns != before.st_mtime_ns:
            raise TagError(f"{change.path}: was changed by another program just now; nothing was written")
        print(json.dumps({**entry, "modified": before.st_mtime_ns}), file=journal)
        sync(journal)
        if keep_time:
            os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
        move(copy, target)


@contextlib.contextmanager
def preparing(timeout: float, max_memory: float) -> Iterator[Task]:
    """`prepare_copy` in a worker process: reading files, which are whatever they are, harms nothing but that."""
    with Pool(_make_preparer, 1, timeout, max_memory) as pool:

        def prepare(order: str) -> Any:
            ((_, entry),) = pool.map([order])
            return entry

        yield prepare


def _make_preparer() -> Task:
    return prepare_copy


def prepare_copy(order: str) -> dict[str, Any] | Failure:
    """Make the changed copy that `write` ordered; returns the journal's entry, or why it isn't safe."""
    job = json.loads(order)
    path, target, copy = job["path"], job["target"], job["copy"]
    try:
        if list(read_genres(target)) != job["before"]:
            raise TagError(f"{path}: its genres were changed meanwhile; nothing was written")
        _copy(target, copy)
        _set(copy, job["after"])
        if audio_hash(copy) != audio_hash(target):
            raise TagError(f"{path}: writing tags would change its audio; nothing was written")
        with open(copy, "r+b") as file:
            sync(file)
    except TagError as error:
        return Failure(UNSAFE, str(error).replace(copy, path))
    facts = {"path": path, "before": job["before"], "after": job["after"]}
    return {**facts, "old": file_hash(target), "new": file_hash(copy), "delta": _delta(target, copy)}


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[IO[str]]:
    """The journal of changes, to be added to; a last line that was cut off stays a line of its own.

    A new one that nothing was added to is gone at the end.
    """
    new = not path.exists()
    try:
        with path.open("a+", encoding="utf-8") as file:
            if file.tell():
                file.seek(file.tell() - 1)
                if file.read() != "\n":
                    file.write("\n")
            yield file
    finally:
        if new and path.exists() and not path.stat().st_size:
            path.unlink()


def undo(journal: Path) -> Iterator[tuple[str, str]]:
    """Take back the changes in a journal, the last first. Yields each path (for a damaged line, the journal's own), and
    "" or why it is left as it is.

    Raises LibraryError when it is no journal.
    """
    for entry in reversed(_entries(journal)):
        if isinstance(entry, str):
            yield str(journal), entry
            continue
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
        with av.open(path, **OPENING) as container:
            for packet in container.demux(container.streams.audio[0]):
                digest.update(bytes(packet))
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise TagError(f"{path}: can't be read ({error})") from None
    return digest.hexdigest()


def _open(path: str) -> Any:
    mutagen = require("mutagen", "tags")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a regular file")
        file = mutagen.File(path)
        if type(file).__name__ == "MP3":
            from mutagen.id3 import ID3, ID3NoHeaderError

            with contextlib.suppress(ID3NoHeaderError):
                file.tags = ID3(path, translate=False)  # frames of ID3v2.3 stay what they are
    except Exception as error:  # it meets bytes that nobody has foreseen
        raise TagError(f"{path}: its tags can't be read ({error})") from None
    try:
        if file.tags is None:
            file.add_tags()
    except Exception:  # None, or a format without tags, such as AAC
        raise TagError(f"{path}: no tags of a kind that genres can be written to") from None
    return file


# How a format keeps genres, by the class of mutagen's tags: the key, or None for ID3's frames.
KEYS = {"MP4Tags": "\xa9gen", "APEv2": "Genre", "ASFTags": "WM/Genre"}


def _kind(tags: Any) -> str | None:
    if any(base.__name__ in ("ID3", "ID3Tags") for base in type(tags).__mro__):
        return None
    return KEYS.get(type(tags).__name__, "genre")


def _get(file: Any) -> list[str]:
    key = _kind(file.tags)
    if key is None:
        return [genre for frame in file.tags.getall("TCON") for genre in frame.genres if genre]
    return [str(value) for value in file.tags.get(key, ()) if str(value)]


def _set(path: str, genres: Sequence[str]) -> None:
    file = _open(path)
    try:
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
def _name_beside(path: str) -> Iterator[str]:
    """The name of an empty file beside `path`; gone at the end, unless it was moved."""
    folder, name = os.path.split(path)
    handle, copy = tempfile.mkstemp(dir=folder, prefix=".musicclass-", suffix=os.path.splitext(name)[1])
    os.close(handle)
    try:
        yield copy
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


def _copy(path: str, copy: str) -> None:
    """With its rights and times."""
    shutil.copyfile(path, copy)
    shutil.copystat(path, copy)
    with contextlib.suppress(OSError, AttributeError):
        os.chown(copy, os.stat(path).st_uid, os.stat(path).st_gid)


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
    now = file_hash(target)
    if now == entry["old"]:
        return "is as it was"
    if now != entry["new"]:
        return "was changed since; left as it is"
    with _name_beside(target) as copy:
        _copy(target, copy)
        digest = hashlib.sha256()
        with _bytes_of(target) as new, open(copy, "wb") as file:
            for part in delta.apply(delta.unpack(entry["delta"]), new):
                digest.update(part)
                file.write(part)
            sync(file)
        if digest.hexdigest() != entry["old"]:
            return "can't be restored: its entry in the journal is damaged"
        os.utime(copy, ns=(entry["modified"], entry["modified"]))
        move(copy, target)
    return ""


def _entries(journal: Path) -> list[dict[str, Any] | str]:
    """A journal's entries, or what is wrong with a line. A last line that was cut off is passed over: its file had not
    been replaced yet."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LibraryError(f"{journal}: can't be read ({error})") from None
    entries: list[dict[str, Any] | str] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not {"path", "old", "new", "delta", "modified"} <= set(entry):
                raise ValueError("something is missing")
            delta.unpack(entry["delta"])
            entries.append(entry)
        except (ValueError, TypeError, IndexError, zlib.error) as error:
            if number < len(lines) or number == 1:
                entries.append(f"line {number} is no entry of a journal of tags ({error}): cut off, or damaged")
    if entries and all(isinstance(entry, str) for entry in entries):
        raise LibraryError(f"{journal}: {entries[0]}")
    return entries


@dataclass(frozen=True)
class Left:
    """Why a file is left as it is."""

    why: str
    failed: bool = False  # it could not be heard, or its tags not be read


@dataclass(frozen=True)
class Tagging:
    """What is to be written."""

    mode: Mode = Mode.only_missing
    top: int = 1  # so many genres
    min_confidence: float | None = None  # by default, familiar music is told
    names: dict[str, str] = field(default_factory=dict)  # the user's, for the model's


def propose(
    folders: Iterable[str], tagging: Tagging, options: Options, table: Path | None = None
) -> Iterator[tuple[str, Change | Left]]:
    """Hear the files in `folders` whose genres would change; yields each path with its change, or why there is none.

    With `table`, answers that are in that library's journal are taken from there, and new ones kept there.
    Raises LibraryError when there is no such journal.
    """
    if table and not journal_path(table).exists():
        raise LibraryError(f"{table}: not a table that `musicclass library` made ({journal_path(table)} is missing)")
    bundle = load_bundle(options.model)
    before: dict[str, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = table or Path(folder) / "answers"
        with Journal(journal_path(out), options.settings(bundle), any_rest=True) as journal:
            found = list(look_at(folders))
            for path, _, _ in found:
                try:
                    genres = read_genres(path)
                except TagError as error:
                    yield path, Left(str(error), failed=True)
                    continue
                if tagging.mode is Mode.only_missing and genres:
                    yield path, Left(f"{path}: has {', '.join(genres)}")
                    continue
                before[path] = genres
            journal.see(item for item in found if item[0] in before)
            known = [(row["path"], row) for row in journal.rows()]
            for path, row in itertools.chain(known, hear(journal, options, bundle)):
                yield path, proposal(path, row, before[path], bundle, tagging)


def proposal(path: str, row: Row, before: tuple[str, ...], bundle: Bundle, tagging: Tagging) -> Change | Left:
    """The change of a file's genres that follows from its row, or why there is none."""
    if row["status"] != OK:
        return Left(str(row["error"]), failed=True)
    if not is_known(row["familiarity"], row["confidence"], tagging.min_confidence):
        return Left(f"{path}: unknown ({row['best_guess']}, {row['confidence']:.0%} sure)")
    ranked = sorted(bundle.genres, key=lambda genre: -row[f"p_{genre}"])[: tagging.top]
    told = list(dict.fromkeys(tagging.names.get(genre, genre) for genre in ranked))
    return plan(path, before, told, tagging.mode) or Left(f"{path}: has {', '.join(before)}")
