"""Routes that write a table's genres into the tags of its files, and undo that; only with `serve --write-tags`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from musicclass.errors import escape_control_chars
from musicclass.library import tags
from musicclass.library.genre_tags import TagError
from musicclass.library.tags import Skipped, TagChange, TagMode, TagOptions
from musicclass.prediction import UNKNOWN
from musicclass.server.library_table import LibraryTable, LibraryTrack
from musicclass.server.problem_details import ProblemError
from musicclass.server.routes_library import Revision, check_revision, find_tracks, local_file
from musicclass.server.settings import ServerSettings

Outcome = Literal["changed", "skipped", "failed"]


class TagRequest(BaseModel):
    """Which genres are written: corrections, else predictions."""

    rows: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = Field(
        None, description="without them, all corrected songs and those above the confidence that `tag` uses"
    )
    revision: Revision = ""
    mode: TagMode = Field(TagMode.only_missing, description="for files that have a genre")
    dry_run: bool = Field(True, description="only respond with what would be written")


@dataclass(frozen=True)
class TaggedFile:
    """A file that is changed or restored, or the reason why it isn't."""

    path: str
    outcome: Outcome
    before: list[str]  # genres in its tags
    after: list[str]
    reason: str = ""  # unless it is changed


@dataclass(frozen=True)
class TagRun:
    """The files of a request; with `dry_run`, what would happen to them."""

    dry_run: bool
    counts: dict[Outcome, int]
    files: list[TaggedFile]
    journal: str  # beside the table, for the undo; empty without one


def make_router(table: LibraryTable, settings: ServerSettings) -> APIRouter:
    """/v1/library/tags and below."""
    router = APIRouter(prefix="/v1/library/tags", tags=["library"], dependencies=[Depends(table.refresh)])
    names, lock = tags.load_genre_names(None, table.genres), threading.Lock()

    @router.post("")
    def write(selection: TagRequest) -> TagRun:
        """Write genres into the tags of files, as `musicclass tag --write` does."""
        check_revision(table, selection.revision)
        tagging = TagOptions(selection.mode, names=names)
        with _one_at_a_time(lock):
            if selection.dry_run:
                return _run(_proposals(table, selection.rows, tagging), lambda change: None)
            journal = tags.new_journal(table.path)
            with (
                tags.open_journal(journal) as file,
                tags.copy_worker(settings.timeout, settings.worker_memory) as make_copy,
            ):
                proposals = _proposals(table, selection.rows, tagging)
                return _run(proposals, lambda change: tags.apply_change(change, file, make_copy), journal)

    @router.post("/undo")
    def undo() -> TagRun:
        """Restore the files of the last writing that isn't undone, byte for byte."""
        with _one_at_a_time(lock):
            journal = tags.latest_journal(table.path)
            if not journal:
                raise ProblemError(404, "nothing_to_undo", f"{table.path.name}: no tags have been written")
            files = [_undone(path, reason) for path, reason in tags.undo(journal)]
            run = _make_run(files, journal)
            if not run.counts["failed"]:
                os.replace(journal, f"{journal}.undone")
            return run

    return router


@contextlib.contextmanager
def _one_at_a_time(lock: threading.Lock) -> Iterator[None]:
    if not lock.acquire(blocking=False):
        raise ProblemError(409, "busy", "tags are being written; wait for the end")
    try:
        yield
    except OSError as error:
        detail = f"{error.filename}: can't be written ({error.strerror}); is the disk full or read-only?"
        raise ProblemError(507, "not_saved", detail) from None
    finally:
        lock.release()


def _proposals(
    table: LibraryTable, rows: list[int] | None, tagging: TagOptions
) -> Iterator[tuple[str, TagChange | Skipped]]:
    """Each song's path in the table with the change of its file, or the reason why it isn't changed."""
    tracks, first = find_tracks(table, rows), dict[str, str]()
    for track in tracks:
        doubt = tags.why_not(track.top_genre, track.confidence, track.genre != UNKNOWN, tagging)
        if track.correction or not doubt:
            yield track.path, _propose(track, tagging, first)
        elif rows is not None:
            yield track.path, Skipped(doubt)


def _propose(track: LibraryTrack, tagging: TagOptions, first: dict[str, str]) -> TagChange | Skipped:
    path = local_file(track)
    if path is None:
        return Skipped("can't be read by this machine", failed=True)
    before = tags.current_genres(str(path), tagging, first)
    if isinstance(before, Skipped):
        return before
    return tags.if_writable(tags.make_change(str(path), before, [track.correction or track.top_genre], tagging))


def _run(
    proposals: Iterator[tuple[str, TagChange | Skipped]],
    apply: Callable[[TagChange], None],
    journal: Path | None = None,
) -> TagRun:
    """Apply the changes; `journal` is None in a dry run."""
    files = []
    for path, change in proposals:
        if isinstance(change, TagChange):
            try:
                apply(change)
                files.append(TaggedFile(path, "changed", list(change.before), list(change.after)))
                continue
            except (TagError, OSError) as error:
                change = Skipped(str(error), failed=True)
        reason = escape_control_chars(" ".join(change.reason.split())).removeprefix(f"{path}: ")
        files.append(TaggedFile(path, "failed" if change.failed else "skipped", [], [], reason))
    return _make_run(files, journal)


def _undone(path: str, reason: str) -> TaggedFile:
    outcome: Outcome = "changed" if not reason else "skipped" if reason == tags.ALREADY_RESTORED else "failed"
    return TaggedFile(path, outcome, [], [], reason)


def _make_run(files: list[TaggedFile], journal: Path | None) -> TagRun:
    counts = Counter(file.outcome for file in files)
    by_outcome: dict[Outcome, int] = {name: counts[name] for name in ("changed", "skipped", "failed")}
    return TagRun(journal is None, by_outcome, files, journal.name if journal and counts["changed"] else "")
