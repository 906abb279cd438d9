"""Folders -> a table of genres, on all cores of this machine; see __init__.py for the way."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.progress import TextColumn

from musicclass import walk
from musicclass.bundle import Bundle, load_bundle
from musicclass.errors import (
    AudioError,
    DecodeError,
    InvalidSampleError,
    LibraryError,
    SilentError,
    TooShortError,
)
from musicclass.files import write_text
from musicclass.library import store, writers
from musicclass.library.journal import Journal, Row
from musicclass.library.report import page
from musicclass.library.workers import Failure, Pool, Task
from musicclass.prediction import Prediction
from musicclass.printing import progress_bar

STATUS = {DecodeError: "unreadable", SilentError: "silent", InvalidSampleError: "invalid", TooShortError: "too short"}
OK = "ok"
LINE_SECONDS = 30.0  # between two lines on how far it is, where no bar can be drawn


@dataclass(frozen=True)
class Options:
    """How a library is heard; what changes answers is in `settings`."""

    model: str = "gtzan"
    min_confidence: float | None = None
    timeline: bool = False
    workers: int = field(default_factory=lambda: usable_cores())
    timeout: float = 60.0  # seconds for one file
    max_memory: float = 1e9  # bytes for one worker
    fast: bool = False  # a few windows of each track only
    retry: bool = False  # failed files again
    ray: str | None = None  # the address of a Ray cluster, or "local": instead of workers of our own

    def settings(self, bundle: Bundle) -> tuple[str, str]:
        """What answers depend on, as two short words: one for the model, one for the rest."""
        from musicclass import __version__

        model = [__version__, bundle.card["sha256"], bundle.card.get("confidence")]
        rest = [self.min_confidence, self.timeline, self.fast]
        first, second = (hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12] for what in (model, rest))
        return first, second


@dataclass
class Summary:
    """What a run came to."""

    files: int = 0  # in the table
    done_now: int = 0
    seconds: float = 0.0  # of this run
    heard: float = 0.0  # seconds of music, in this run
    genres: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


def run(
    names: Iterable[str], out: Path, options: Options, report: Path | None = None, make_task: Any = None
) -> Summary:
    """Hear all audio files in the folders `names`, and write the table `out`, and the page `report`; files that are
    done are not heard again.

    `make_task` replaces what workers do, for tests. Raises LibraryError, BundleError and MissingExtraError before
    anything is heard; a file that can't be used is a row.
    """
    writers.check_output(out)
    files = look_at(names)
    bundle = load_bundle(options.model)
    summary, begun = Summary(), time.monotonic()
    with Journal(journal_path(out), options.settings(bundle)) as journal:
        journal.see(files)
        for _, row in hear(journal, options, bundle, make_task):
            summary.done_now += 1
            summary.heard += row.get("duration") or 0.0
        summary.seconds = time.monotonic() - begun
        summary.files, _ = journal.count()
        columns = writers.columns(bundle.genres, options.timeline)
        writers.write(out, _counted(journal.rows(), columns, summary), bundle.genres, options.timeline)
        if report:
            rows = (writers.plain(row, columns) for row in journal.rows())
            write_text(report, page(rows, bundle.genres, bundle.name))
    return summary


def hear(journal: Journal, options: Options, bundle: Bundle, make_task: Any = None) -> Iterator[tuple[str, Row]]:
    """Hear the files that are still to do, and keep each row; yields them as they come, and shows how far it is."""
    files, to_do = journal.count(options.retry)
    with _pool(options, bundle, make_task, to_do) as pool, _Display(files - to_do, files) as display:
        for path, value in pool.map(journal.pending(options.retry)):
            row = as_row(path, value, bundle.name)
            journal.record(path, row, failed=row["status"] != OK)
            display.step(row)
            yield path, row


def _pool(options: Options, bundle: Bundle, make_task: Any, to_do: int) -> Any:
    if options.ray and to_do:
        from musicclass.library.on_ray import RayPool

        return RayPool(bundle, options)
    make_task = make_task or functools.partial(
        make_listener, options.model, options.min_confidence, options.timeline, options.fast
    )
    return Pool(make_task, min(options.workers, max(1, to_do)), options.timeout, options.max_memory)


def journal_path(out: Path) -> Path:
    """Where the journal of a table lies: beside it."""
    return out.with_name(out.name + ".journal")


def usable_cores() -> int:
    """Cores that this process may use; on Windows, which can't wait for more processes, at most 60."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 60) if sys.platform == "win32" else cores


def make_listener(model: str, min_confidence: float | None = None, timeline: bool = False, fast: bool = False) -> Task:
    """What a worker does: path -> the row's part that comes from hearing the file, or a Failure."""
    from musicclass.classifier import Classifier

    classifier = Classifier.load(model, min_confidence=min_confidence)

    def hear_one(path: str) -> Row | Failure:
        try:
            with opened(path) as source:
                return as_told(classifier.predict(source, fast), timeline)
        except AudioError as error:
            return failure(error)

    return hear_one


def opened(path: str) -> AbstractContextManager[Any]:
    """What to hear at a path or an address."""
    return store.open_file(path) if store.is_remote(path) else nullcontext(path)


def as_told(told: Prediction, timeline: bool) -> Row:
    """The part of a row that comes from hearing the file."""
    names = ("duration", "genre", "best_guess", "confidence", "familiarity")
    row = {name: getattr(told, name) for name in names}
    row |= {f"p_{genre}": share for genre, share in told.probabilities.items()}
    if timeline:
        parts = ("start", "end", "genre", "confidence")
        row["segments"] = [{name: getattr(part, name) for name in parts} for part in told.segments]
    return row


def failure(error: AudioError) -> Failure:
    """An error as workers report it."""
    return Failure(STATUS[type(error)], " ".join(str(error).split()))


def as_row(path: str, value: Row | Failure, model: str) -> Row:
    """What a worker has to say of a file, as its row."""
    if not isinstance(value, Failure):
        return {**value, "model": model, "status": OK}
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    error = value.error if value.error.startswith(name) else f"{name}: {value.error}"
    return {"model": model, "status": value.status, "error": error}


def look_at(names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Each file in folders, or below addresses, with its size in bytes and time of modification in ns.

    Raises LibraryError, before the first, for a name that leads to nothing.
    """
    tops = list(dict.fromkeys(name if store.is_remote(name) else os.path.abspath(name) for name in names))
    for top in tops:
        if not store.is_remote(top) and not os.path.exists(top):
            raise LibraryError(f"{top}: no such file or folder; is its disk there?")
    return _looked_at(tops)


def _looked_at(tops: list[str]) -> Iterator[tuple[str, int, int]]:
    for top in tops:
        if store.is_remote(top):
            yield from store.look_at(top)
            continue
        for path in walk.below(top) if os.path.isdir(top) else (top,):
            try:
                status = os.stat(path)
                yield path, status.st_size, min(status.st_mtime_ns, 2**63 - 1)  # SQLite's largest number
            except OSError:
                yield path, 0, -1


def _counted(rows: Iterable[Row], columns: list[str], summary: Summary) -> Iterator[Row]:
    for row in rows:
        if row["status"] == OK:
            summary.genres[row["genre"]] += 1
        else:
            summary.failures[row["status"]] += 1
        yield writers.plain(row, columns)


class _Display:
    """How far it is, on stderr: a bar where that is a terminal, else a line now and then."""

    def __init__(self, done: int, total: int):
        self.bar = progress_bar(TextColumn("{task.fields[more]}"))
        self.done, self.total, self.before = done, total, done
        self.heard, self.failed = 0.0, 0
        self.begun = self.told = time.monotonic()

    def __enter__(self) -> _Display:
        if self.before:
            print(f"{self.before:,} of {self.total:,} files are done already", file=sys.stderr)
        self.bar.start()
        self.task = self.bar.add_task("Files", total=self.total, completed=self.done, more="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, row: Row) -> None:
        self.done += 1
        self.failed += row["status"] != OK
        self.heard += row.get("duration") or 0.0
        now = time.monotonic()
        seconds = max(1e-3, now - self.begun)
        rate = (self.done - self.before) / seconds
        words = f"{rate:,.1f} files/s, {self.heard / seconds:,.0f} times real time, {self.failed:,} failed"
        self.bar.update(self.task, completed=self.done, more=words)
        if self.bar.disable and now - self.told > LINE_SECONDS:
            self.told = now
            left = timedelta(seconds=round((self.total - self.done) / rate))
            print(f"{self.done:,} of {self.total:,} files, {words}, {left} left", file=sys.stderr)
