"""Files in folders -> predictions on all cores -> a table of genres; see __init__.py for the steps."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicclass.audio_files import iter_audio_files
from musicclass.config import AudioConfig
from musicclass.errors import AudioError, LibraryError, escape_control_chars
from musicclass.files import write_text
from musicclass.library import file_tags, remote, table
from musicclass.library.corrections import Corrections
from musicclass.library.genre_tags import TagError, audio_key
from musicclass.library.map import update_map
from musicclass.library.report import html_report
from musicclass.library.results import ResultStore, Row
from musicclass.prediction import UNKNOWN, is_in_distribution
from musicclass.saved_model import DEFAULT_MODEL, SavedModel, load_model
from musicclass.workers import OK, TaskFailure, TaskFn, WorkerPool, task_failure, usable_cores

NAMED_FAILURES = 20  # at the end of a run
LISTING_FILES = 1_000  # between two reports of progress
MAX_TIME = 2**63 - 1  # SQLite's largest integer


@dataclass(frozen=True)
class ScanOptions:
    """How the files of a library are processed."""

    model: str = DEFAULT_MODEL
    min_confidence: float | None = None
    segments: bool = False  # store the segments along each track as well
    embeddings: bool = False  # write the embeddings, which are stored for the map, into the table as well
    sampled: bool = False  # predict from a few windows of each track
    workers: int = field(default_factory=usable_cores)
    timeout: float = 60.0  # seconds for each file
    max_memory: float = 1e9  # bytes for each worker
    retry_failed: bool = False
    allow_missing: bool = False  # though most files of the table are gone
    ray: str | None = None  # the address of a Ray cluster, or "local", instead of a WorkerPool

    def settings(self, model: SavedModel) -> tuple[str, ...]:
        """What a row depends on beside the audio: hashes of the model with its tagger, and of options; more columns.

        `min_confidence` isn't among them: it applies to stored scores.
        """
        from musicclass import __version__, tagger

        model_parts = [__version__, model.card["sha256"], model.uses_tagger and tagger.available(), "file_tags"]
        hashes = (hashlib.sha256(json.dumps(part).encode()).hexdigest()[:12] for part in (model_parts, self.sampled))
        return *hashes, *["segments"] * self.segments


@dataclass
class ScanSummary:
    """The state of a run, and its result."""

    files: int = 0  # rows of the table
    listing: bool = False  # `files` are those listed so far
    mapping: bool = False  # all are done; songs get their positions in the map
    done: int = 0  # files, with those of earlier runs
    already_done: int = 0  # files, by earlier runs
    reused: int = 0  # files of this run whose audio has a row
    failed: int = 0  # files of this run
    audio_seconds: float = 0.0  # of this run's files
    seconds: float = 0.0  # duration of this run
    genres: Counter[str] = field(default_factory=Counter)  # in the table
    failures: Counter[str] = field(default_factory=Counter)  # in the table, by status
    skipped: Counter[str] = field(default_factory=Counter)  # other files in folders, by suffix
    damaged: int = 0  # files in the table that have a genre though seconds are lost
    reasons: list[str] = field(default_factory=list)  # of the first NAMED_FAILURES

    @property
    def processed(self) -> int:
        """The number of files that this run processed."""
        return self.done - self.already_done


ProgressCallback = Callable[[ScanSummary], None]


def run(
    names: Iterable[str],
    out: Path,
    options: ScanOptions,
    report: Path | None = None,
    on_progress: ProgressCallback = lambda summary: None,
) -> ScanSummary:
    """Predict the genre of all audio files in the folders `names`; write the table `out` and the HTML page `report`.

    Files that are done and unchanged aren't processed again; a file that can't be used is a row with an error. Raises
    LibraryError, ModelError and MissingExtraError before the first file is processed.
    """
    table.check_output(out, options.embeddings)
    corrections = Corrections(out).read()
    summary = ScanSummary()
    files = scan(names, summary.skipped)
    model = load_model(options.model)
    files = _with_progress(files, on_progress)
    if options.embeddings and not model.uses_tagger:
        raise LibraryError(f"{model.name} has no embeddings; choose another --model, or omit --embeddings")
    with ResultStore(store_path(out), options.settings(model), retry_failed=options.retry_failed) as store:
        store.upsert_files(files)
        present, listed = store.count()[0], store.listed()
        if present < listed / 2 and not options.allow_missing:
            raise LibraryError(
                f"{out}: has {listed:,} files, of which at most {present:,} are left; check that their disk is "
                "connected, or, if they are gone for good, give --allow-missing"
            )
        for _ in process_files(store, options, model, on_progress, summary):
            pass
        summary.mapping = True
        on_progress(summary)
        update_map(store)
        columns = table.columns(model.genres, options.segments, options.embeddings)
        table.write(out, (table.table_row(row, columns) for row in _counted(_rows(store, options), summary)), columns)
        if report:
            genres = Counter[str]()  # complete when all rows are read
            rows = _corrected((table.table_row(row, columns) for row in _rows(store, options)), corrections, genres)
            write_text(report, html_report(rows, genres, summary.failures, model.genres, model.name))
        store.complete()
    return summary


def _rows(store: ResultStore, options: ScanOptions) -> Iterator[Row]:
    """The store's rows, with the genres that follow from `options.min_confidence`."""
    for row in store.rows():
        for scores in (row, *(row.get("segments") or ())) if row["status"] == OK else ():
            if scores["genre"] is not None:
                known = is_in_distribution(scores["familiarity"], scores["confidence"], options.min_confidence)
                scores["genre"] = scores["top_genre"] if known else UNKNOWN
        yield row


def rows_of_files(
    files: Iterable[tuple[str, int, int]],
    options: ScanOptions,
    model: SavedModel,
    library: Path | None = None,
    on_progress: ProgressCallback = lambda summary: None,
) -> Iterator[tuple[str, Row]]:
    """Each of the `files` (see `scan`) with its row.

    With `library`, a table, its results are used where they are up to date, and new ones added to them. Raises
    LibraryError when they are missing.
    """
    check_library(library)
    with tempfile.TemporaryDirectory() as folder:
        path = store_path(library) if library else Path(folder) / "results"
        with ResultStore(path, options.settings(model), any_options=True) as store:
            store.upsert_files(files)
            done = [(row["file"], row) for row in store.rows()]
            yield from itertools.chain(done, process_files(store, options, model, on_progress, ScanSummary()))


def check_library(library: Path | None) -> None:
    """Raise LibraryError for a table without a store of results."""
    if library and not store_path(library).exists():
        raise LibraryError(f"{library}: not a table made by `musicclass library` ({store_path(library)} is missing)")


def process_files(
    store: ResultStore, options: ScanOptions, model: SavedModel, on_progress: ProgressCallback, summary: ScanSummary
) -> Iterator[tuple[str, Row]]:
    """Predict and store the rows of the store's pending files; yields them in order of completion.

    `summary` is updated, and passed to `on_progress` after each file.
    """
    start = time.monotonic()
    summary.files, pending = store.count()
    summary.done = summary.already_done = summary.files - pending
    on_progress(summary)
    for file, row in predict_files(store.pending(), pending, options, model, store.known_audio()):
        failed, audio = row["status"] != OK, row.pop("audio", None)
        if same := row.pop("same_audio", None):
            row = store.reuse(file, same, {name: row.get(name) for name in file_tags.COLUMNS})
            summary.reused += 1
        else:
            store.record(file, row, failed, audio)
        summary.done += 1
        summary.failed += failed
        summary.audio_seconds += row.get("duration") or 0.0
        summary.seconds = time.monotonic() - start
        on_progress(summary)
        yield file, row


def predict_files(
    files: Iterable[str],
    n_files: int,
    options: ScanOptions,
    model: SavedModel,
    known_audio: frozenset[bytes] = frozenset(),
) -> Iterator[tuple[str, Row]]:
    """Each file with its row, in order of completion, from a pool of workers or, with `options.ray`, from Ray.

    A row has the hash of its `audio`, where there is one; where that is in `known_audio`, the row is `same_audio` and
    the file's tags.
    """
    make_task = functools.partial(make_predict_task, options, known_audio)
    workers = min(options.workers, max(1, n_files))
    with WorkerPool(make_task, workers, options.timeout, options.max_memory) as pool:
        results = pool.map(files)
        if options.ray and n_files:
            from musicclass.library.ray_backend import map_files

            results = map_files(files, model, options)
        for file, value in results:
            yield file, _result_row(file, value, model.name)


def store_path(out: Path) -> Path:
    """The ResultStore of a table: a file beside it."""
    return out.with_name(out.name + ".journal")


def make_predict_task(options: ScanOptions, known_audio: frozenset[bytes] = frozenset()) -> TaskFn:
    """The task of a worker: file -> the part of its row that comes from the audio, or a TaskFailure."""
    from musicclass.classifier import Classifier

    classifier = Classifier.load(options.model, AudioConfig(max_step_seconds=0), options.min_confidence)

    def process(source: Any) -> Row:
        audio = None
        with contextlib.suppress(TagError):
            if isinstance(source, str) and not options.sampled:  # which saves reading the whole file
                audio = audio_key(source)
        tags = file_tags.read_file_tags(source) if isinstance(source, str) else {}
        if audio in known_audio:
            return {"same_audio": audio} | tags
        prediction = classifier.predict(source, options.sampled)
        return table.prediction_row(prediction, options.segments) | {"audio": audio} | tags

    return file_task(process)


def file_task(process: TaskFn) -> TaskFn:
    """A task that opens a path or an address for `process`, and returns an AudioError as a TaskFailure."""

    def task(file: str) -> Any:
        try:
            with remote.open_file(file) if remote.is_remote(file) else contextlib.nullcontext(file) as source:
                return process(source)
        except AudioError as error:
            return task_failure(error)

    return task


def _result_row(file: str, value: Row | TaskFailure, model: str) -> Row:
    """The row of a file from a worker's result."""
    if not isinstance(value, TaskFailure):
        return {**value, "status": OK}
    name = escape_control_chars(file)
    error = value.error if value.error.startswith(name) else f"{name}: {value.error}"
    return {"model": model, "status": value.status, "error": error}


def scan(names: Iterable[str], skipped: Counter[str] | None = None) -> Iterator[tuple[str, int, int]]:
    """The audio files in folders or below addresses, with size in bytes and time of modification in ns (-1: unknown).

    `skipped` counts the suffixes of other local files. Raises LibraryError, before the first, for a name that doesn't
    exist.
    """
    tops = dict.fromkeys(name if remote.is_remote(name) else os.path.abspath(name) for name in names)
    for top in tops:
        if not remote.is_remote(top) and not os.path.exists(top):
            raise LibraryError(f"{top}: no such file or folder; check the name, and that its disk is connected")
    return itertools.chain.from_iterable(
        remote.scan(top) if remote.is_remote(top) else _scan_local(top, skipped) for top in tops
    )


def _with_progress(files: Iterable[tuple[str, int, int]], on_progress: ProgressCallback) -> Iterator[Any]:
    """The same files; every LISTING_FILES of them, `on_progress` gets a summary with their number alone."""
    for number, file in enumerate(files, 1):
        if number % LISTING_FILES == 0:
            on_progress(ScanSummary(files=number, listing=True))
        yield file


def _scan_local(top: str, skipped: Counter[str] | None) -> Iterator[tuple[str, int, int]]:
    yield from map(file_state, iter_audio_files(top, skipped) if os.path.isdir(top) else (top,))


def file_state(file: str) -> tuple[str, int, int]:
    """The file with its size in bytes and time of modification in ns (-1: unknown)."""
    try:
        status = os.stat(file)
        return file, status.st_size, min(status.st_mtime_ns, MAX_TIME)
    except OSError:
        return file, 0, -1


def _corrected(rows: Iterable[Row], corrections: dict[str, str], genres: Counter[str]) -> Iterator[Row]:
    """The rows with corrected genres, which are counted in `genres`."""
    for row in rows:
        if row["genre"] is not None:
            row["genre"] = corrections.get(row["file"], row["genre"])
            genres[row["genre"]] += 1
        yield row


def _counted(rows: Iterable[Row], summary: ScanSummary) -> Iterator[Row]:
    for row in rows:
        if row["status"] == OK:
            summary.genres[row["genre"]] += 1
            summary.damaged += bool(row.get("seconds_lost"))
        else:
            summary.failures[row["status"]] += 1
            if len(summary.reasons) < NAMED_FAILURES:
                summary.reasons.append(row["error"])
        yield row
