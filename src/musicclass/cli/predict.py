"""`musicclass predict`."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicclass.cli.options import MinimumOption, ModelOption
from musicclass.errors import AudioError, escape_control_chars
from musicclass.saved_model import DEFAULT_MODEL

if TYPE_CHECKING:
    from musicclass.classifier import Classifier
    from musicclass.explain import Explanation
    from musicclass.prediction import Prediction

BAR, NAME = 24, 12  # characters
FULL_COLORS = ("256", "truecolor")  # where genres' colors are distinct
COLUMNS, SCORES = ("file", "genre", "top_genre"), ("confidence", "familiarity")


def predict(
    files: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns; - reads names from standard input.", metavar="FILES")
    ],
    model: ModelOption = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for one file.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table with one row per file.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Number of genres to print per file.")] = 3,
    min_confidence: MinimumOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot to write (.png, .svg or .pdf); for several files, a folder.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Decode only four windows of each long track.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the times and frequencies on which the genre rests most.")
    ] = False,
) -> None:
    """Predict the genre of audio files and of their segments."""
    from musicclass import audio_files
    from musicclass.classifier import Classifier
    from musicclass.progress import make_progress

    output = _output_format(as_json, as_jsonl, as_csv, explain)
    if fast and explain:
        raise typer.BadParameter("--explain needs the whole track; choose one of --fast, --explain")
    skipped = Counter[str]()
    names = list(audio_files.files(files, skipped))
    single = len(names) == 1 and files[0] != "-" and not os.path.isdir(files[0])
    if not names:
        raise typer.BadParameter("no file names on standard input")
    if as_json and not single:
        raise typer.BadParameter("--json is for one file; use --jsonl for several")
    plots = _plot_paths(plot, names, single)
    classifier = Classifier.load(model, min_confidence=min_confidence)
    writer, bar = PredictionWriter(output, classifier, top), make_progress()
    show_bar = len(names) > 1 and not sys.stdout.isatty()  # in a terminal, the results themselves show the progress
    with bar if show_bar else contextlib.nullcontext():
        for name, path in bar.track(list(zip(names, plots, strict=True)), description="Predict"):
            try:
                explanation = classifier.explain(name) if explain else None
                prediction = explanation.prediction if explanation else classifier.predict(name, fast)
                writer.result(prediction, explanation)
                if path and not _plot_segments(classifier, prediction, explanation, path):
                    writer.failed = True
            except AudioError as error:
                writer.failure(name, error)
            sys.stdout.flush()
    if skipped:
        print(escape_control_chars(audio_files.describe_skipped(skipped)), file=sys.stderr)
    if writer.failed:
        raise typer.Exit(1)


def _output_format(as_json: bool, as_jsonl: bool, as_csv: bool, explain: bool) -> str:
    """The `output` of PredictionWriter. Raises BadParameter for options that exclude each other."""
    if as_json + as_jsonl + as_csv > 1:
        raise typer.BadParameter("choose one of --json, --jsonl, --csv")
    if as_csv and explain:
        raise typer.BadParameter("--csv has no columns for an explanation; use --jsonl")
    return "json" if as_json else "jsonl" if as_jsonl else "csv" if as_csv else "table"


def _plot_paths(plot: Path | None, names: list[str], single: bool) -> list[Path] | list[None]:
    """A path for the plot of each file: below the folder `plot` with the files' own sub-folders, or `plot` itself."""
    if plot is None:
        return [None] * len(names)
    from musicclass.plots import SUFFIXES, check_suffix, require_matplotlib

    require_matplotlib()
    if single and not plot.is_dir():
        check_suffix(plot)
        return [plot]
    if plot.suffix.lower() in SUFFIXES and not plot.is_dir():
        raise typer.BadParameter("--plot takes a folder for the plots of several files")
    absolute = [os.path.abspath(name) for name in names]
    try:
        parent = os.path.commonpath([str(Path(name).parent) for name in absolute])
    except ValueError:  # Windows: files on several drives
        raise typer.BadParameter("--plot takes files of one drive at a time") from None
    return [plot / (os.path.relpath(name, parent) + ".png") for name in absolute]


def _plot_segments(classifier: Classifier, prediction: Prediction, explanation: Explanation | None, path: Path) -> bool:
    """Whether the plot could be written; if not, one line says why, and the other files go on."""
    from musicclass import audio, plots

    assert prediction.file is not None
    waveform = audio.load(prediction.file, 8_000, classifier.limits)
    try:
        plots.save(plots.timeline(prediction, waveform, explanation), path)
    except OSError as error:
        name = escape_control_chars(str(path))
        print(f"{name}: the plot can't be written ({error.strerror}); choose another --plot", file=sys.stderr)
        return False
    print(f"{escape_control_chars(str(path))} written", file=sys.stderr)
    return True


class PredictionWriter:
    """Prints predictions one by one as "table", "json", "jsonl" or "csv"; errors go to stderr as well."""

    def __init__(self, output: str, classifier: Classifier, top: int):
        from rich.console import Console

        self.output, self.genres, self.top = output, classifier.genres, top
        self.max_seconds = classifier.limits.max_seconds
        self.failed = False
        self.console = Console(highlight=False, soft_wrap=True, emoji=False)
        columns = (
            *COLUMNS,
            *SCORES,
            "duration",
            "seconds_lost",
            "tags",
            *(f"prob_{genre}" for genre in self.genres),
            "error",
        )
        self.csv = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\r\n")
        if output == "csv":
            self.csv.writeheader()

    def result(self, prediction: Prediction, explanation: Explanation | None) -> None:
        """Print one prediction."""
        name = escape_control_chars(prediction.file or "")
        if prediction.duration >= self.max_seconds:
            print(f"{name}: only the first {self.max_seconds:g} s were used", file=sys.stderr)
        if lost := prediction.seconds_lost:
            whole = prediction.duration + lost
            print(f"{name}: damaged, {lost:.1f} of {whole:.1f} s are lost; copy it again", file=sys.stderr)
        if self.output == "table":
            self._print_table(prediction)
            if explanation:
                self.console.print(f"  {explanation.summary()}", markup=False)
        elif self.output == "csv":
            numbers = {name: getattr(prediction, name) for name in SCORES}
            numbers |= {f"prob_{genre}": value for genre, value in prediction.probabilities.items()}
            row = {name: getattr(prediction, name) for name in COLUMNS}
            row |= {"tags": ", ".join(prediction.tags), "duration": f"{prediction.duration:.3f}"}
            row |= {"seconds_lost": f"{prediction.seconds_lost:.3f}"}
            self.csv.writerow(row | {name: f"{value:.6f}" for name, value in numbers.items()})
        else:
            print(json.dumps(prediction.to_dict() | ({"explanation": explanation.to_dict()} if explanation else {})))

    def failure(self, name: str, error: AudioError) -> None:
        """Print the error of one file."""
        self.failed = True
        print(" ".join(str(error).splitlines()), file=sys.stderr)
        row = {"file": name, "error": str(error)}
        if self.output == "csv":
            self.csv.writerow(row)
        elif self.output != "table":
            print(json.dumps(row))

    def _print_table(self, prediction: Prediction) -> None:
        """Name and summary, a bar for each of the most probable genres, tags, and the genres of the segments."""
        from rich.cells import cell_len
        from rich.text import Text

        from musicclass.explain import clock
        from musicclass.palette import genre_color
        from musicclass.text import percent

        line = Text(escape_control_chars(prediction.file or ""), style="bold")
        self.console.print(Text.assemble(line, f"  {clock(prediction.duration)}  {prediction.summary()}"))
        for i, (genre, probability) in enumerate(list(prediction.probabilities.items())[: self.top]):
            bar = ("█" * round(probability * BAR)).ljust(BAR)
            name = genre + " " * (NAME - cell_len(genre))
            line = Text(f"  {name}", style="bold" if i == 0 else "")
            self.console.print(line.append(bar, genre_color(genre, self.genres)).append(f" {percent(probability):>4}"))
        if prediction.tags:
            self.console.print(Text(f"  {'tags':<{NAME}}").append(", ".join(prediction.tags)))
        line = Text(f"  {'segments':<{NAME}}")
        genres = [segment.genre for segment in prediction.segments]
        if self.console.no_color or self.console.color_system not in FULL_COLORS:  # the times of changes
            runs = [next(run) for _, run in groupby(prediction.segments, key=lambda segment: segment.genre)]
            line.append(", ".join(f"{clock(run.start)} {run.genre or 'silence'}" for run in runs))
        else:
            for column in range(BAR):
                line.append("▀", genre_color(genres[int((column + 0.5) / BAR * len(genres))], self.genres))
            for each in dict.fromkeys(genres):
                line.append(" ").append(each or "silence", genre_color(each, self.genres))
        self.console.print(line)
