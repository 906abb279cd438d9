"""The command line: arguments and printing only. Results go to stdout, everything else to stderr.

Exit status: 0 all well, 1 some files failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from musicclass import cli_training
from musicclass.errors import MusicClassError, printable, require

app = typer.Typer(
    help="Tell the genre of music, and train what tells it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ModelOption = Annotated[str, typer.Option("--model", "-m", help="A folder made by `train`, or a name that ships.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", "-j", min=1, help="By default, one for each core.")]
TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds that one file may take.")]
MemoryOption = Annotated[float, typer.Option(min=0.3, help="GB of memory that one worker may take.")]
MinimumOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Confidence below which the genre is unknown, instead of familiarity."),
]


def _version(asked: bool) -> None:
    if asked:
        from musicclass import __version__

        print(f"musicclass {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def predict(
    files: Annotated[list[str], typer.Argument(help="Files, folders, patterns; - reads names from standard input.")],
    model: ModelOption = "gtzan",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for one file.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table with a row for each file.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many genres the table shows for a file.")] = 3,
    min_confidence: MinimumOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the time line; for several files, the folder for them.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Which seconds and frequencies it rests on; in the picture, too.")
    ] = False,
) -> None:
    """Tell the genre of files: over the whole track and along its time line."""
    from musicclass import walk
    from musicclass.classifier import Classifier
    from musicclass.errors import AudioError
    from musicclass.printing import Printer

    kind = _kind_of_output(as_json, as_jsonl, as_csv, explain)
    one_file = len(files) == 1 and files[0] != "-" and not os.path.isdir(files[0])
    names = list(walk.files(files))
    one_file = one_file and len(names) == 1
    if as_json and not one_file:
        raise typer.BadParameter("--json is for one file; use --jsonl for many")
    if plot:
        from musicclass.plots import check_suffix

        require("matplotlib", "plot")
        if one_file:
            check_suffix(plot)
    if not names:
        raise typer.BadParameter("no file is named on standard input")
    classifier = Classifier.load(model, min_confidence=min_confidence)
    printer = Printer(kind, classifier.genres, top, len(names), classifier.limits.max_seconds)
    pictures = [] if plot is None else [plot] if one_file else _picture_paths(plot, names)
    failed = False
    try:
        for number, name in enumerate(names):
            try:
                why = classifier.explain(name) if explain else None
                prediction = why.prediction if why else classifier.predict(name)
                printer.result(prediction, why)
                if pictures:
                    _draw_timeline(classifier, name, prediction, why, pictures[number])
            except AudioError as error:
                failed = True
                printer.failure(name, error)
    finally:
        printer.finish()
    if failed:
        raise typer.Exit(1)


def _kind_of_output(as_json: bool, as_jsonl: bool, as_csv: bool, explain: bool) -> str:
    """As printing.Printer takes it. Raises BadParameter where options contradict each other."""
    if as_json + as_jsonl + as_csv > 1:
        raise typer.BadParameter("choose one of --json, --jsonl, --csv")
    if as_csv and explain:
        raise typer.BadParameter("a table of --csv has no place for what --explain tells; use --jsonl")
    return "json" if as_json else "jsonl" if as_jsonl else "csv" if as_csv else "table"


def _picture_paths(folder: Path, names: list[str]) -> list[Path]:
    """A path below `folder` for each name, in sub-folders as the names are."""
    full = [os.path.abspath(name) for name in names]
    try:
        top = os.path.commonpath([str(Path(name).parent) for name in full])
    except ValueError:  # Windows
        raise typer.BadParameter("--plot draws files of one drive at a time") from None
    return [folder / (os.path.relpath(name, top) + ".png") for name in full]


def _draw_timeline(classifier: Any, name: str, prediction: Any, why: Any, path: Path) -> None:
    from musicclass import audio, plots

    waveform = audio.load(name, 8_000, classifier.limits)
    plots.save(plots.timeline(prediction, waveform, why), path)
    print(f"{printable(str(path))} written", file=sys.stderr)


@app.command()
def library(
    folders: Annotated[
        list[str], typer.Argument(help="Folders, files, or addresses such as s3://bucket/music.", metavar="DIR...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write: .parquet, .csv or .jsonl.")],
    model: ModelOption = "gtzan",
    timeline: Annotated[bool, typer.Option("--timeline", help="The segments along each track, too.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Hear a few parts of each track only.")] = False,
    report: Annotated[Path | None, typer.Option(help="One HTML page (.html) about the whole library.")] = None,
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    max_memory: MemoryOption = 1.0,
    min_confidence: MinimumOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed files again.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(help="Hear on this Ray cluster (auto, HOST:PORT, ray://…, or local).", metavar="ADDRESS"),
    ] = None,
) -> None:
    """Tell the genre of whole folders, into one table; the same command again hears only what is new or changed."""
    from musicclass.library import run as running
    from musicclass.printing import library_summary

    if report and (report.suffix.lower() != ".html" or report.is_dir()):
        raise typer.BadParameter("--report: a file that ends in .html")
    cores = workers or running.usable_cores()
    options = running.Options(
        model, min_confidence, timeline, cores, timeout, max_memory * 1e9, fast, retry_failed, ray
    )
    try:
        summary = running.run(folders, out, options, report)
    except KeyboardInterrupt:
        print(f"interrupted; what is done is kept, the same command goes on ({out}.journal)", file=sys.stderr)
        raise
    library_summary(summary)
    if not summary.files:
        print(f"no audio files in {', '.join(folders)}; is that the right place?", file=sys.stderr)
    for path in (out, *[report] * bool(report)):
        print(f"{path} written", file=sys.stderr)
    if summary.failures:
        raise typer.Exit(1)


@app.command()
def serve(
    table: Annotated[Path | None, typer.Option("--library", help="A table of `library`, to look at.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; any but this machine's needs --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="MUSICCLASS_TOKEN", help="A word that every request has to bring.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may ask, such as https://example.org.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    model: ModelOption = "gtzan",
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    max_memory: MemoryOption = 1.0,
    max_size: Annotated[float, typer.Option(min=0.001, help="MB that one request may send.")] = 200.0,
    max_minutes: Annotated[float, typer.Option(min=0.1, help="The rest of a longer file is not heard.")] = 120.0,
    queue: Annotated[int, typer.Option(min=1, help="Files that may wait; more are told to come again.")] = 100,
    min_confidence: MinimumOption = None,
) -> None:
    """Show a web page that tells the genre of songs, and an API that programs can ask."""
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "web")
    if wrong := [site for site in cors or () if not re.fullmatch(r"https?://[^/]+", site)]:
        raise typer.BadParameter(f"--cors {wrong[0]}: sites look like https://example.org")
    from musicclass.library.run import usable_cores
    from musicclass.web.serve import serve as run_server
    from musicclass.web.settings import Settings

    settings = Settings(
        model=model,
        min_confidence=min_confidence,
        library=table,
        host=host,
        port=port,
        token=token,
        origins=tuple(cors or ()),
        workers=workers or usable_cores(),
        timeout=timeout,
        max_memory=max_memory * 1e9,
        max_seconds=max_minutes * 60,
        max_body=int(max_size * 1e6),
        queue=queue,
    )
    run_server(settings, browser)


@app.command()
def tag(
    folders: Annotated[list[str] | None, typer.Argument(help="Folders or files of music.", metavar="[DIR...]")] = None,
    write: Annotated[
        bool, typer.Option("--write/--dry-run", help="Change the files, or only show what would.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to genres that are there.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put in place of genres that are there.")] = False,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Only where there is none: the default.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="So many genres, the most probable ones.")] = 1,
    min_confidence: MinimumOption = None,
    names: Annotated[Path | None, typer.Option("--map", help='Your names, in TOML: hiphop = "Hip-Hop".')] = None,
    keep_mtime: Annotated[bool, typer.Option("--keep-mtime", help="Keep the files' times of modification.")] = False,
    journal: Annotated[Path | None, typer.Option(help="Where changes are noted, to be undone; with --write.")] = None,
    undo: Annotated[Path | None, typer.Option(metavar="JOURNAL", help="Take the changes in it back.")] = None,
    table: Annotated[
        Path | None, typer.Option("--library", help="A table of `library`: what it has heard isn't heard again.")
    ] = None,
    model: ModelOption = "gtzan",
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    max_memory: MemoryOption = 1.0,
) -> None:
    """Write genres into the tags of files; without --write, only show what would change."""
    from musicclass.bundle import load_bundle
    from musicclass.library import tags
    from musicclass.library.run import Options, usable_cores

    require("mutagen", "tags")
    if undo:
        if folders or write:
            raise typer.BadParameter("--undo takes a journal alone")
        _undo_tags(undo)
        return
    if not folders:
        raise typer.BadParameter("no folder is given")
    if append + replace + only_missing > 1:
        raise typer.BadParameter("choose one of --only-missing, --append, --replace")
    mode = tags.Mode.append if append else tags.Mode.replace if replace else tags.Mode.only_missing
    own_names = tags.load_map(names, load_bundle(model).genres)
    options = Options(model, workers=workers or usable_cores(), timeout=timeout, max_memory=max_memory * 1e9)
    proposals = tags.propose(folders, tags.Tagging(mode, top, min_confidence, own_names), options, table)
    target = journal or Path(time.strftime("musicclass-tags-%Y%m%d-%H%M%S.journal"))
    with (
        tags.open_journal(target) if write else contextlib.nullcontext() as notes,
        tags.preparing(timeout, max_memory * 1e9) as prepare,
    ):
        _tag_files(proposals, notes, keep_mtime, prepare, target)


def _tag_files(proposals: Any, notes: Any, keep_mtime: bool, prepare: Any, target: Path) -> None:
    from musicclass.library import tags

    changed, left, failed = 0, 0, 0
    try:
        for path, change in proposals:
            if isinstance(change, tags.Left):
                left, failed = left + (not change.failed), failed + change.failed
                print(printable(" ".join(change.why.split())), file=sys.stderr)
                continue
            try:
                if notes:
                    tags.write(change, notes, keep_mtime, prepare)
            except (tags.TagError, OSError) as error:
                failed += 1
                print(printable(str(error)), file=sys.stderr)
                continue
            changed += 1
            before, after = (", ".join(genres) or "none" for genres in (change.before, change.after))
            print(printable(f"{path}: {before} -> {after}"))
    finally:
        if notes and changed:
            print(f"{changed} files changed, {left} left, {failed} failed; take it back: "
                  f"musicclass tag --undo {target}", file=sys.stderr)  # fmt: skip
        elif notes and left + failed:
            print(f"no file changed, {left} left, {failed} failed", file=sys.stderr)
        elif changed + left + failed:
            print(f"{changed} files would change, {left} would not, {failed} can't; --write does it", file=sys.stderr)
    if not changed + left + failed:
        print("no audio files there; is that the right place?", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _undo_tags(journal: Path) -> None:
    from musicclass.library import tags

    restored, left, done = 0, 0, False
    try:
        for path, why in tags.undo(journal):
            restored, left = restored + (not why), left + bool(why)
            print(printable(f"{path}: {why or 'restored'}"), file=sys.stderr if why else sys.stdout)
        done = True
    finally:
        if done or restored + left:
            more = "" if done else "; stopped: the same command goes on"
            print(f"{restored} files restored, {left} left as they are{more}", file=sys.stderr)
    if left:
        raise typer.Exit(1)


app.add_typer(cli_training.app)


def main() -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"  # no code pages in files
            stream.reconfigure(encoding=encoding, errors="backslashreplace", newline="\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names are bytes
    warnings.showwarning = lambda message, *_, **__: print(printable(f"warning: {message}"), file=sys.stderr)
    try:
        return int(app(standalone_mode=False) or 0)
    except MusicClassError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a reader that left, a full disk, a folder that may not be written
        if not isinstance(error, BrokenPipeError):
            print(f"{error}; nothing more was written", file=sys.stderr)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        show = getattr(error, "show", None)  # click's errors: wrong usage
        if show is None:
            raise
        show()
        return 2


def run() -> None:
    """The console script."""
    sys.exit(main())
