"""Predicted genres -> the tags of files, reversibly.

A change is made in a copy, which replaces the file when its audio is the same. The journal holds what restores the
previous bytes from the new file, and is written first; `undo` restores a file unless another program has changed it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import mmap
import os
import re
import shutil
import tempfile
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
from musicclass.library import binary_delta
from musicclass.library.genre_tags import TagError, audio_hash, read_genres, spelling, write_genres
from musicclass.library.results import ResultStore, Row
from musicclass.library.run import ProgressCallback, ScanOptions, ScanSummary, process_files, scan, store_path
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


# In cross-validation, 81% of the genres that `music` predicts with this confidence or more are right, and these are 84%
# of its genres (`gtzan`: 84%, 80%).
MIN_CONFIDENCE = 0.5
MIN_FURTHER = 0.25
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
    except (OSError, ValueError) as error:
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

    With `table`, the results of that library are used, and new ones added to them. Raises LibraryError when they are
    missing.
    """
    if table and not store_path(table).exists():
        raise LibraryError(f"{table}: not a table made by `musicclass library` ({store_path(table)} is missing)")
    model = load_model(options.model)
    genres: dict[str, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = store_path(table) if table else Path(folder) / "results"
        with ResultStore(path, options.settings(model), any_options=True) as store:
            files = list(scan(folders))
            first = dict[str, str]()  # by real path
            for file, _, _ in files:
                if (same := first.setdefault(os.path.realpath(file), file)) != file:
                    yield file, Skipped(f"{file}: the same file as {same}")
                    continue
                try:
                    before = read_genres(file)
                except TagError as error:
                    yield file, Skipped(str(error), failed=True)
                    continue
                if tagging.mode is TagMode.only_missing and before:
                    yield file, Skipped(f"{file}: has {', '.join(before)}")
                else:
                    genres[file] = before
            store.upsert_files(item for item in files if item[0] in genres)
            done = [(row["file"], row) for row in store.rows()]
            new = process_files(store, options, model, on_progress, ScanSummary())
            for file, row in itertools.chain(done, new):
                change = propose_change(file, row, genres[file], model, tagging)
                obstacle = write_obstacle(file) if isinstance(change, TagChange) else ""
                yield file, Skipped(obstacle, failed=True) if obstacle else change


def propose_change(
    path: str, row: Row, before: tuple[str, ...], model: SavedModel, tagging: TagOptions
) -> TagChange | Skipped:
    """The change of a file's genres that follows from its row, or the reason why it isn't changed."""
    if row["status"] != OK:
        return Skipped(str(row["error"]), failed=True)
    if not is_in_distribution(row["familiarity"], row["confidence"], tagging.min_confidence):
        return Skipped(f"{path}: unknown (closest to {row['top_genre']}, {percent(row['confidence'])})")
    if tagging.min_confidence is None and row["confidence"] < MIN_CONFIDENCE:
        return Skipped(f"{path}: {row['top_genre']} with a confidence of {percent(row['confidence'])} isn't written")
    ranked = sorted(model.genres, key=lambda genre: -row[f"prob_{genre}"])[: tagging.top]
    ranked = [genre for i, genre in enumerate(ranked) if not i or row[f"prob_{genre}"] >= tagging.min_further]
    names = tuple(dict.fromkeys(tagging.names.get(genre, genre) for genre in ranked))
    after = combine_genres(before, names, tagging.mode)
    return TagChange(path, before, after) if after != before else Skipped(f"{path}: has {', '.join(before)}")


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
