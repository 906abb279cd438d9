"""Predicted genres -> the tags of files, reversibly.

A change is made in a copy, which replaces the file when its audio is the same. The journal holds what restores the
previous bytes from the new file, and is written first; `undo` restores a file unless another program has changed it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import mmap
import os
import re
import shutil
import tempfile
import time
import tomllib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

from musicclass.errors import ConfigError, LibraryError
from musicclass.files import file_hash, move, sync
from musicclass.library import MIN_CONFIDENCE, MIN_FURTHER, binary_delta
from musicclass.library.corrections import Corrections
from musicclass.library.genre_tags import TagError, audio_hash, read_genres, spelling, write_genres
from musicclass.library.results import Row
from musicclass.library.run import ProgressCallback, ScanOptions, check_library, rows_of_files, scan
from musicclass.library.table import table_name
from musicclass.prediction import is_in_distribution
from musicclass.saved_model import SavedModel, load_model
from musicclass.text import percent
from musicclass.workers import OK, TaskFailure, TaskFn, WorkerPool


class TagMode(Enum):
    """How predicted genres are combined with those in a file."""

    only_missing = "only missing"
    append = "append"
    replace = "replace"


class TagChange(NamedTuple):
    """The change of a file's genres."""

    path: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Skipped(NamedTuple):
    """The reason why a file isn't changed."""

    reason: str
    failed: bool = False  # its audio or its tags can't be read


NAMES = {  # as tags usually have them, ID3v1's list among them
    "blues": "Blues", "classical": "Classical", "country": "Country", "disco": "Disco", "electronic": "Electronic",
    "hiphop": "Hip-Hop", "jazz": "Jazz", "metal": "Metal", "pop": "Pop", "reggae": "Reggae", "rnb": "R&B",
    "rock": "Rock",
}  # fmt: skip


@dataclass(frozen=True)
class TagOptions:
    """Which genres are written."""

    mode: TagMode = TagMode.only_missing
    top: int = 1  # the number of genres
    min_confidence: float | None = None  # by default MIN_CONFIDENCE, and the genre is known by its familiarity
    names: dict[str, str] = field(default_factory=dict)  # how genres are written, by the model's names
    min_further: float = MIN_FURTHER  # probability of a genre after the first


def load_genre_names(path: Path | None, genres: Sequence[str]) -> dict[str, str]:
    """The names to write for genres: those in NAMES, and from a TOML file of `genre = "Name"` lines.

    Raises ConfigError for an invalid file, or a genre that the model doesn't have.
    """
    usual = {genre: NAMES[genre] for genre in genres if genre in NAMES}
    if path is None:
        return usual
    try:
        names = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); check the name") from None
    except ValueError as error:
        raise ConfigError(f"{path}: can't be read as TOML: {error}") from None
    if unknown := sorted(set(names) - set(genres)):
        raise ConfigError(f"{path}: not a genre of the model: {', '.join(unknown)}; it has {', '.join(genres)}")
    if invalid := [genre for genre, name in names.items() if not isinstance(name, str) or not name.strip()]:
        raise ConfigError(f'{path}: {invalid[0]} needs a name, such as {invalid[0]} = "{invalid[0].title()}"')
    return usual | names


# Which files change


def propose_changes(
    folders: Iterable[str],
    tagging: TagOptions,
    options: ScanOptions,
    table: Path | None = None,
    on_progress: ProgressCallback = lambda summary: None,
) -> Iterator[tuple[str, TagChange | Skipped]]:
    """Each file in `folders` with its change, or the reason why it isn't changed.

    With `table`, the results of that library and the user's corrections are used, and new results added. Raises
    LibraryError when they are missing.
    """
    check_library(table)
    model = load_model(options.model)
    corrections = Corrections(table).read() if table else {}
    genres: dict[str, tuple[str, ...]] = {}
    files = list(scan(folders))
    first = dict[str, str]()  # by real path
    for file, _, _ in files:
        before = current_genres(file, tagging, first)
        if isinstance(before, Skipped):
            yield file, before
        else:
            genres[file] = before
    pending = (item for item in files if item[0] in genres)
    for file, row in rows_of_files(pending, options, model, table, on_progress):
        correction = corrections.get(table_name(file), "")
        yield file, if_writable(propose_change(file, row, genres[file], model, tagging, correction))


def current_genres(path: str, tagging: TagOptions, first: dict[str, str]) -> tuple[str, ...] | Skipped:
    """The genres in a file's tags, or the reason why it isn't changed; `first` are the files so far, by real path."""
    if (same := first.setdefault(os.path.realpath(path), path)) != path:
        return Skipped(f"{path}: the same file as {same}")
    try:
        genres = read_genres(path)
    except TagError as error:
        return Skipped(str(error), failed=True)
    if tagging.mode is TagMode.only_missing and genres:
        return Skipped(f"{path}: has {', '.join(genres)}")
    return genres


def propose_change(
    path: str, row: Row, before: tuple[str, ...], model: SavedModel, tagging: TagOptions, correction: str = ""
) -> TagChange | Skipped:
    """The change of a file's genres that follows from the user's correction or, without one, from its row.

    Otherwise, the reason why it isn't changed.
    """
    if correction:
        return make_change(path, before, [correction], tagging)
    if row["status"] != OK:
        return Skipped(str(row["error"]), failed=True)
    known = is_in_distribution(row["familiarity"], row["confidence"], tagging.min_confidence)
    if doubt := why_not(row["top_genre"], row["confidence"], known, tagging):
        return Skipped(f"{path}: {doubt}")
    ranked = sorted(model.genres, key=lambda genre: -row[f"prob_{genre}"])[: tagging.top]
    ranked = [genre for i, genre in enumerate(ranked) if not i or row[f"prob_{genre}"] >= tagging.min_further]
    return make_change(path, before, ranked, tagging)


def why_not(top_genre: str, confidence: float, known: bool, tagging: TagOptions) -> str:
    """Why a prediction isn't written, or ""; `known`: it isn't "unknown"."""
    if not known:
        return f"unknown (closest to {top_genre}, {percent(confidence)})"
    if tagging.min_confidence is None and confidence < MIN_CONFIDENCE:
        return f"{top_genre} with a confidence of {percent(confidence)} isn't written"
    return ""


def make_change(path: str, before: tuple[str, ...], genres: Iterable[str], tagging: TagOptions) -> TagChange | Skipped:
    """The change that writes genres, or the reason why the file isn't changed."""
    names = tuple(dict.fromkeys(tagging.names.get(genre, genre) for genre in genres))
    after = combine_genres(before, names, tagging.mode)
    return TagChange(path, before, after) if after != before else Skipped(f"{path}: has {', '.join(before)}")


def if_writable(change: TagChange | Skipped) -> TagChange | Skipped:
    """The change or, when the file can't be changed, the reason."""
    obstacle = write_obstacle(change.path) if isinstance(change, TagChange) else ""
    return Skipped(obstacle, failed=True) if obstacle else change


def combine_genres(before: tuple[str, ...], predicted: tuple[str, ...], mode: TagMode) -> tuple[str, ...]:
    """The genres of a file after a change."""
    if mode is TagMode.only_missing:
        return before or predicted
    if mode is TagMode.replace:
        return predicted
    present = {spelling(part) for genre in before for part in re.split("[;/,]", genre)}
    return before + tuple(genre for genre in predicted if spelling(genre) not in present)


# Changing a file


def make_tagged_copy(order: tuple[TagChange, str, str, str]) -> dict[str, Any] | TaskFailure:
    """Write genres to a copy; takes (change, real path, path of the copy, separator), returns the journal's values."""
    change, target, copy, separator = order
    try:
        if read_genres(target) != change.before:
            raise TagError(f"{change.path}: its genres changed in the meantime; nothing was written")
        write_genres(copy, change.after, separator)
        if audio_hash(copy) != audio_hash(target):
            raise TagError(f"{change.path}: writing tags would change its audio; nothing was written")
        with open(copy, "r+b") as file:
            sync(file)
    except TagError as error:
        return TaskFailure("unsafe", str(error).replace(copy, change.path))
    with _mapped(target) as old, _mapped(copy) as new:
        delta = binary_delta.to_json(binary_delta.diff(old, new))
    return {"old": file_hash(target), "new": file_hash(copy), "delta": delta}


def write_obstacle(path: str) -> str:
    """Why a file can't be changed, or ""."""
    target = os.path.realpath(path)
    if not os.access(target, os.W_OK):
        return f"{path}: no permission to write; change it if the file should get tags"
    if (links := os.stat(target).st_nlink) > 1:
        return f"{path}: has {links} hard links, of which only one would get tags; replace them by symbolic links"
    return ""


def apply_change(
    change: TagChange,
    journal: IO[str],
    make_copy: TaskFn = make_tagged_copy,
    keep_mtime: bool = False,
    separator: str = "\0",
) -> None:
    """Change a file's genres. Raises TagError, and leaves the file as it is, when that isn't safe.

    `make_copy` may run in another process, as it reads untrusted bytes; see `copy_worker`. `separator` joins the
    genres in ID3v2.3.
    """
    target = os.path.realpath(change.path)  # a link stays a link
    if obstacle := write_obstacle(change.path):
        raise TagError(obstacle)
    status = os.stat(target)
    with _temporary_copy(target) as copy:
        entry = make_copy((change, target, copy, separator))
        if isinstance(entry, TaskFailure):
            raise TagError(entry.error if entry.error.startswith(change.path) else f"{change.path}: {entry.error}")
        if os.stat(target).st_mtime_ns != status.st_mtime_ns:
            raise TagError(f"{change.path}: changed by another program in the meantime; nothing was written")
        print(json.dumps({**change._asdict(), **entry, "modified": status.st_mtime_ns}), file=journal)
        sync(journal)
        if keep_mtime:
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        move(copy, target)


@contextlib.contextmanager
def copy_worker(timeout: float, max_memory: float) -> Iterator[TaskFn]:
    """`make_tagged_copy` in a worker process, with limits (see WorkerPool)."""
    with WorkerPool(_get_copy_task, 1, timeout, max_memory) as pool:
        yield lambda order: next(value for _, value in list(pool.map([order])))


def _get_copy_task() -> TaskFn:
    return make_tagged_copy


@contextlib.contextmanager
def _temporary_copy(path: str) -> Iterator[str]:
    """A copy of a file beside it, with its permissions, times and, where possible, owner; deleted unless moved."""
    folder, name = os.path.split(path)
    _remove_old_copies(folder)
    handle, copy = tempfile.mkstemp(dir=folder, prefix=f".musicclass-{os.getpid()}-", suffix=os.path.splitext(name)[1])
    os.close(handle)
    try:
        shutil.copy2(path, copy)
        with contextlib.suppress(OSError, AttributeError):
            os.chown(copy, os.stat(path).st_uid, os.stat(path).st_gid)
        yield copy
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


@functools.cache  # once for each folder
def _remove_old_copies(folder: str) -> None:
    """Remove the copies of runs that were killed."""
    for entry in list(os.scandir(folder)):
        name = re.match(r"\.musicclass-(\d+)-", entry.name)
        if name and not psutil.pid_exists(int(name[1])):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


@contextlib.contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        yield view


# Restoring files


def new_journal(table: Path) -> Path:
    """Where a writing of a table's genres is recorded from now on: beside the table."""
    return table.with_name(f"{table.name}.tags-{time.strftime('%Y%m%d-%H%M%S')}.journal")


def latest_journal(table: Path) -> Path | None:
    """The last of `new_journal` that is there."""
    return max(table.parent.glob(f"{glob.escape(table.name)}.tags-*.journal"), default=None)


ALREADY_RESTORED = "already restored"
JOURNAL_START = b'{"path": '  # see `apply_change`


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[IO[str]]:
    """The journal of changes, to append to; a new one that stays empty is deleted at the end.

    Raises LibraryError for another kind of file.
    """
    if path.exists():
        with path.open("rb") as existing:
            if not JOURNAL_START.startswith(existing.read(len(JOURNAL_START))):
                raise LibraryError(f"{path}: exists and isn't a journal; give --journal another name")
    try:
        with path.open("a+", encoding="utf-8") as file:
            if file.tell():
                file.seek(file.tell() - 1)
                if file.read() != "\n":  # the last line was truncated
                    file.write("\n")
            yield file
    finally:
        if path.exists() and not path.stat().st_size:
            path.unlink()


def undo(journal: Path) -> Iterator[tuple[str, str]]:
    """Undo the changes in a journal, the last one first.

    Yields each path, or the journal's for a damaged line, and the reason why it isn't restored, or "". Raises
    LibraryError for a file that isn't a journal.
    """
    entries = _read_journal(journal)
    states = defaultdict[str, list[str]](list)  # of each file before its changes that aren't undone yet
    for entry in entries:
        if isinstance(entry, dict):
            states[entry["path"]].append(entry["old"])
    for entry in reversed(entries):
        if isinstance(entry, str):
            yield str(journal), entry
            continue
        earlier = states[entry["path"]]
        earlier.pop()
        try:
            yield entry["path"], _restore(entry, earlier)
        except (OSError, ValueError) as error:
            yield entry["path"], f"can't be restored ({error})"


def _restore(entry: dict[str, Any], earlier: Sequence[str]) -> str:
    """Undo one change; `earlier` are the hashes of the file before the changes that precede it."""
    target = os.path.realpath(entry["path"])
    current = file_hash(target)
    if current == entry["old"] or (current in earlier and current != entry["new"]):
        return ALREADY_RESTORED
    if current != entry["new"]:
        return "changed since by another program; not restored"
    with _temporary_copy(target) as copy:
        with _mapped(target) as new, open(copy, "wb") as file:
            file.writelines(binary_delta.patch(binary_delta.from_json(entry["delta"]), new))
            sync(file)
        if file_hash(copy) != entry["old"]:
            return "can't be restored: its entry in the journal is damaged"
        os.utime(copy, ns=(entry["modified"], entry["modified"]))
        move(copy, target)
    return ""


def _read_journal(journal: Path) -> list[dict[str, Any] | str]:
    """A journal's entries, or what is wrong with a line; a truncated last line is skipped: its file wasn't changed."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LibraryError(f"{journal}: can't be read ({error.strerror}); check the name") from None
    except UnicodeDecodeError:
        raise LibraryError(f"{journal}: not a journal made by `musicclass tag --write`; check the name") from None
    entries: list[dict[str, Any] | str] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            binary_delta.from_json(entry["delta"])
            entries.append({name: entry[name] for name in ("path", "old", "new", "delta", "modified")})
        except (ValueError, TypeError, LookupError, zlib.error) as error:
            if number < len(lines) or number == 1:
                entries.append(f"line {number} is damaged or not an entry of a journal of tags ({error!r})")
    if entries and all(isinstance(entry, str) for entry in entries):
        raise LibraryError(f"{journal}: {entries[0]}")
    return entries
