"""`musicclass library` and `musicclass tag`."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicclass.audio_files import describe_skipped
from musicclass.cli.options import MemoryOption, MinimumOption, ModelOption, TimeoutOption, WorkersOption
from musicclass.errors import LibraryError, escape_control_chars, import_optional
from musicclass.library import MIN_CONFIDENCE, MIN_FURTHER
from musicclass.saved_model import DEFAULT_MODEL
from musicclass.text import plural

if TYPE_CHECKING:
    from musicclass.library.run import ProgressCallback, ScanSummary
    from musicclass.library.tags import Skipped, TagChange

LINE_SECONDS = 30.0  # between two lines of progress where stderr isn't a terminal
BAR_WIDTH = 40
SEPARATORS = {"nul": "\0", ";": "; ", "/": "/"}  # of genres in ID3v2.3


def library(
    folders: Annotated[
        list[str], typer.Argument(help="Folders, files, or addresses such as s3://bucket/music.", metavar="DIR")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write: .parquet, .csv or .jsonl.")],
    model: ModelOption = DEFAULT_MODEL,
    segments: Annotated[bool, typer.Option("--segments", help="Add a column with the segments of each track.")] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Add a column with the embedding of each track (200 numbers).")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Decode only four windows of each long track.")] = False,
    report: Annotated[Path | None, typer.Option(help="HTML page (.html) with statistics of the library.")] = None,
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    worker_memory_gb: MemoryOption = 1.0,
    min_confidence: MinimumOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Process failed files again.")] = False,
    tolerate_failed: Annotated[
        bool, typer.Option("--tolerate-failed", help="Status 0 though files failed, for cron; 1 without it.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Write the table though most of its files are gone.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on this Ray cluster (auto, HOST:PORT, ray://…, or local).", metavar="ADDRESS"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Then keep the table up to date as files come and go, until Ctrl-C.")
    ] = False,
) -> None:
    """Classify all audio files below DIR into one table. Later runs process only new or changed files."""
    from musicclass.library import run as runner
    from musicclass.library.watch import watch as watch_folders
    from musicclass.workers import usable_cores

    if report and (report.suffix.lower() != ".html" or report.is_dir()):
        raise typer.BadParameter("--report takes a file name that ends in .html")
    options = runner.ScanOptions(
        model, min_confidence, segments, embeddings, fast, workers or usable_cores(), timeout, worker_memory_gb * 1e9,
        retry_failed, allow_missing, ray,
    )  # fmt: skip

    def update() -> ScanSummary:
        with _progress_display() as show:
            return runner.run(folders, out, options, report, show)

    changes = watch_folders(folders, out) if watch else iter([None])
    next(changes)  # from here on, no change is missed
    try:
        summary = update()
    except KeyboardInterrupt:
        store = runner.store_path(out)
        print(f"interrupted; results so far are kept in {store}: run the same command to continue", file=sys.stderr)
        raise
    _print_summary(summary)
    if not summary.files:
        print(f"no audio files in {', '.join(folders)}; check the folder", file=sys.stderr)
    for path in (out, *[report] * bool(report)):
        print(f"{path} written", file=sys.stderr)
    if summary.skipped:
        print(escape_control_chars(describe_skipped(summary.skipped)), file=sys.stderr)
    if summary.damaged:
        print(f"{plural(summary.damaged, 'damaged file')} analysed in part; see column `seconds_lost`", file=sys.stderr)
    _print_failures(summary, out)
    if watch:
        _follow(changes, update, out)
    elif summary.failures and not tolerate_failed:
        raise typer.Exit(1)


def _print_failures(summary: ScanSummary, out: Path) -> None:
    """The first files that failed, on stderr."""
    if not summary.failures:
        return
    for reason in summary.reasons:
        print(escape_control_chars(reason), file=sys.stderr)
    if (more := summary.failures.total() - len(summary.reasons)) > 0:
        print(f"… and {more:,} more", file=sys.stderr)
    count = f"{summary.failures.total():,} of {plural(summary.files, 'file')} failed"
    print(f"{count}; column `error` of {out} has the reasons, --retry-failed tries again", file=sys.stderr)


def _follow(changes: Iterator[None], update: Callable[[], ScanSummary], out: Path) -> None:
    """Update the table after each change, until Ctrl-C or a signal; one line for each."""
    print("waiting for changes (Ctrl-C stops)", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt), _signals_interrupt():
        for _ in changes:
            try:
                summary = update()
            except LibraryError as error:  # a disk that isn't connected, say
                print(escape_control_chars(str(error)), file=sys.stderr)
                continue
            processed = f"{plural(summary.processed, 'file')} processed, {summary.failed:,} failed"
            print(f"{out} written: {plural(summary.files, 'file')}; {processed}", file=sys.stderr)


def _print_summary(summary: ScanSummary) -> None:
    """Counts for each genre and each cause of failure, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for style, counts in (("", summary.genres), ("red", summary.failures)):
        for name, count in counts.most_common():
            share = count / summary.files
            table.add_row(Text(name, style=style), f"{count:>9,}", f"{share:>6.1%}", "█" * round(share * BAR_WIDTH))
    console.print(table)
    if summary.reused:
        console.print(f"{plural(summary.reused, 'file')} of known audio: not analysed again")
    if summary.processed:
        console.print(f"{plural(summary.processed, 'file')} processed in {summary.seconds:,.1f} s: {_speed(summary)}")


def _speed(summary: ScanSummary) -> str:
    seconds = max(summary.seconds, 1e-3)
    return f"{summary.processed / seconds:,.1f} files/s, {summary.audio_seconds / seconds:,.0f} times real time"


@contextlib.contextmanager
def _progress_display() -> Iterator[ProgressCallback]:
    """Shows progress on stderr: a bar on a terminal, else a line every LINE_SECONDS."""
    from rich.progress import TextColumn

    from musicclass.progress import make_progress

    last_line = time.monotonic()
    with make_progress(TextColumn("{task.fields[rates]}")) as bar:
        task = bar.add_task("Files", rates="", start=False)

        def show(summary: ScanSummary) -> None:
            nonlocal last_line
            files = plural(summary.files, "file")
            if summary.mapping:
                bar.update(task, rates="placing songs in the map")
                return
            if summary.listing:
                bar.update(task, rates=f"{files} listed")
                if bar.disable and time.monotonic() - last_line > LINE_SECONDS:
                    last_line = time.monotonic()
                    print(f"{files} listed", file=sys.stderr)
                return
            if not summary.processed:
                bar.start_task(task)
                if summary.done:
                    print(f"{summary.done:,} of {files} already done", file=sys.stderr)
            rates = f"{_speed(summary)}, {summary.failed:,} failed"
            bar.update(task, completed=summary.done, total=summary.files, rates=rates)
            if bar.disable and summary.processed and time.monotonic() - last_line > LINE_SECONDS:
                last_line = time.monotonic()
                left = (summary.files - summary.done) * summary.seconds / summary.processed
                print(f"{summary.done:,} of {files}, {rates}, {timedelta(seconds=round(left))} left",
                      file=sys.stderr)  # fmt: skip

        yield show


def tag(
    folders: Annotated[list[str] | None, typer.Argument(help="Folders or files of music.", metavar="DIR")] = None,
    write: Annotated[bool, typer.Option("--write/--dry-run", help="Write the tags, or only show the changes.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to the genres that a file has.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the genres that a file has.")] = False,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Tag only files without a genre (the default).")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Write up to N genres, most probable first.", metavar="N")] = 1,
    min_further: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a genre after the first needs.")
    ] = MIN_FURTHER,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=f"Write genres of this confidence or more. Default: {MIN_CONFIDENCE} (81% are right in music's "
            "cross-validation), and not unknown.",
        ),
    ] = None,
    genre_names: Annotated[
        Path | None, typer.Option(help='TOML file with spellings, such as hiphop = "Hip-Hop".', metavar="TOML")
    ] = None,
    id3v23_separator: Annotated[
        str, typer.Option(help="Between genres in ID3v2.3, which has no separator of its own: nul, ; or /.")
    ] = "nul",
    keep_mtime: Annotated[bool, typer.Option("--keep-mtime", help="Keep the files' modification times.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Where --write records the changes, for --undo; by default, in this folder.")
    ] = None,
    undo: Annotated[
        Path | None, typer.Option(metavar="JOURNAL", help="Restore the files that --write changed.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--library", help="A table made by `library`; its results are used where up to date.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    worker_memory_gb: MemoryOption = 1.0,
) -> None:
    """Write predicted genres into the tags of files. Without --write, only show the changes."""
    from musicclass.library import tags
    from musicclass.library.run import ScanOptions
    from musicclass.saved_model import load_model
    from musicclass.workers import usable_cores

    import_optional("mutagen", "tags")
    if undo:
        if folders or write:
            raise typer.BadParameter("--undo takes only a journal")
        _undo_tags(undo)
        return
    if not folders:
        raise typer.BadParameter("give a folder or file")
    if id3v23_separator not in SEPARATORS:
        raise typer.BadParameter("--id3v23-separator is nul, ; or /")
    if append + replace + only_missing > 1:
        raise typer.BadParameter("choose one of --only-missing, --append, --replace")
    mode = tags.TagMode.append if append else tags.TagMode.replace if replace else tags.TagMode.only_missing
    names = tags.load_genre_names(genre_names, load_model(model).genres)
    max_memory = worker_memory_gb * 1e9
    options = ScanOptions(model, workers=workers or usable_cores(), timeout=timeout, max_memory=max_memory)
    journal = journal or Path(time.strftime("musicclass-tags-%Y%m%d-%H%M%S.journal"))
    with (
        tags.open_journal(journal) if write else contextlib.nullcontext() as file,
        tags.copy_worker(timeout, max_memory) as make_copy,
        _progress_display() as show,
    ):
        tagging = tags.TagOptions(mode, top, min_confidence, names, min_further)
        proposals = tags.propose_changes(folders, tagging, options, table, show)

        def apply(change: tags.TagChange) -> None:
            if file:
                tags.apply_change(change, file, make_copy, keep_mtime, SEPARATORS[id3v23_separator])

        with _signals_interrupt():
            _tag_files(proposals, apply, journal if write else None)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP (systemd, a closed terminal) end a run as Ctrl-C does."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)


def _tag_files(
    proposals: Iterator[tuple[str, TagChange | Skipped]], apply: Callable[[TagChange], None], journal: Path | None
) -> None:
    """Print and apply the changes; `journal` is None in a dry run."""
    from musicclass.library.genre_tags import TagError
    from musicclass.library.tags import Skipped

    counts = Counter[str]()
    try:
        for path, change in proposals:
            if isinstance(change, Skipped):
                outcome, message = "failed" if change.failed else "skipped", " ".join(change.reason.split())
            else:
                before, after = (", ".join(genres) or "none" for genres in (change.before, change.after))
                outcome, message = "changed", f"{path}: {before} -> {after}"
                try:
                    apply(change)
                except (TagError, OSError) as error:
                    outcome, message = "failed", str(error)
            counts[outcome] += 1
            print(escape_control_chars(message), file=sys.stdout if outcome == "changed" else sys.stderr)
    finally:
        if counts:
            changed, skipped, failed = (counts[outcome] for outcome in ("changed", "skipped", "failed"))
            hint = f"; to undo: musicclass tag --undo {journal}" if journal else "; --write changes them"
            would, hint = "" if journal else "would be ", hint if changed else ""
            files = plural(changed, "file")
            print(f"{files} {would}changed, {skipped} skipped, {failed} failed{hint}", file=sys.stderr)
    if not counts:
        print("no audio files found; check the folder", file=sys.stderr)
    if counts["failed"]:
        raise typer.Exit(1)


def _undo_tags(journal: Path) -> None:
    from musicclass.library import tags

    counts, hint = Counter[str](), "; interrupted: run the same command to continue"
    try:
        for path, reason in tags.undo(journal):
            counts["restored" if not reason else reason if reason == tags.ALREADY_RESTORED else "skipped"] += 1
            print(escape_control_chars(f"{path}: {reason or 'restored'}"), file=sys.stderr if reason else sys.stdout)
        hint = "" if counts["restored"] or counts["skipped"] else "; nothing is left to undo"
    finally:
        if counts or not hint:
            already = f", {counts[tags.ALREADY_RESTORED]} already restored" * bool(counts[tags.ALREADY_RESTORED])
            changes = plural(counts["restored"], "change")
            print(f"{changes} undone{already}, {counts['skipped']} skipped{hint}", file=sys.stderr)
    if counts["skipped"]:
        raise typer.Exit(1)
