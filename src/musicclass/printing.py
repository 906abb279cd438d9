"""How results look in a terminal, and as JSON and CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from musicclass.errors import AudioError, printable
from musicclass.plots import colour
from musicclass.prediction import Prediction, in_words

if TYPE_CHECKING:
    from musicclass.explain import Explanation
    from musicclass.library.run import Summary

T = TypeVar("T")
BAR = 24  # characters


def progress_bar(*more: ProgressColumn) -> Progress:
    """A bar on stderr, where that is a terminal, with `more` columns before the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results are not for stderr
        disable=not sys.stderr.isatty(),
    )


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a progress bar."""
    with progress_bar() as bar:
        yield from bar.track(items, description=what)


class Printer:
    """Prints predictions as they come, as "table", "json", "jsonl" or "csv"; failures go to stderr as well."""

    def __init__(self, kind: str, genres: Sequence[str], top: int, count: int, max_seconds: float):
        self.kind, self.genres, self.top, self.max_seconds = kind, genres, top, max_seconds
        self.console = Console(highlight=False, soft_wrap=True, emoji=False)
        self.bar = progress_bar()
        self.task = self.bar.add_task("Predict", total=count)
        if count > 1 and not sys.stdout.isatty():  # there, the results themselves show how far it is
            self.bar.start()
        self.writer = csv.writer(sys.stdout, lineterminator="\r\n")
        if kind == "csv":
            self.writer.writerow(["file", "genre", "best_guess", "confidence", "duration", *genres, "error"])

    def result(self, prediction: Prediction, why: Explanation | None = None) -> None:
        if prediction.duration >= self.max_seconds:
            print(f"{prediction.file}: only the first {self.max_seconds:g} s were heard", file=sys.stderr)
        if self.kind == "table":
            self._table(prediction)
            if why:
                self.console.print(f"  {escape(why.in_words())}")
        elif self.kind == "csv":
            p = prediction
            shares = [f"{p.probabilities[genre]:.6f}" for genre in self.genres]
            self.writer.writerow(
                [p.file, p.genre, p.best_guess, f"{p.confidence:.6f}", f"{p.duration:.3f}", *shares, ""]
            )
        else:
            print(json.dumps(prediction.to_dict() | ({"explanation": why.to_dict()} if why else {})))
        self._step()

    def failure(self, name: str, error: AudioError) -> None:
        print(" ".join(str(error).splitlines()), file=sys.stderr)
        if self.kind in ("json", "jsonl"):
            print(json.dumps({"file": name, "error": str(error)}))
        elif self.kind == "csv":
            self.writer.writerow([name, "", "", "", "", *[""] * len(self.genres), str(error)])
        self._step()

    def finish(self) -> None:
        self.bar.stop()

    def _step(self) -> None:
        sys.stdout.flush()
        self.bar.advance(self.task)

    def _table(self, prediction: Prediction) -> None:
        minutes, seconds = divmod(round(prediction.duration), 60)
        name = escape(printable(prediction.file or ""))
        self.console.print(f"[bold]{name}[/]  {minutes}:{seconds:02}  {escape(in_words(prediction))}")
        for i, (genre, share) in enumerate(list(prediction.probabilities.items())[: self.top]):
            line = Text(f"  {genre:<12}", style="bold" if i == 0 else "")
            line.append(("█" * round(share * BAR)).ljust(BAR), style=colour(genre, self.genres))
            line.append(f" {share:>4.0%}")
            self.console.print(line)
        strip = Text("  along it    ")
        for column in range(BAR):
            at = (column + 0.5) / BAR * len(prediction.segments)
            told = prediction.segments[int(at)].genre
            strip.append("▀", style=colour(told, self.genres))
        told_genres = dict.fromkeys(s.genre or "silence" for s in prediction.segments)
        strip.append(f" {', '.join(told_genres)}")
        self.console.print(strip)


def library_summary(summary: Summary) -> None:
    """Counts for each genre and each cause of failure, as text on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for style, counts in (("", summary.genres), ("red", summary.failures)):
        for name, count in counts.most_common():
            share = count / max(1, summary.files)
            table.add_row(Text(name, style=style), f"{count:>9,}", f"{share:>6.1%}", "█" * round(share * BAR))
    console.print(table)
    if summary.done_now:
        files, times = summary.done_now / summary.seconds, summary.heard / summary.seconds
        speed = f"{files:,.1f} files/s, {times:,.0f} times real time"
        console.print(f"{summary.done_now:,} files heard in {summary.seconds:,.1f} s: {speed}")


def seeds_table(runs: dict[str, dict[str, Any]], summary: dict[str, tuple[float, float]], title: str) -> None:
    """The metrics of runs that differ by their seed, then mean and standard deviation."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("", *summary):
        table.add_column(name.replace("_", " "), justify="right" if name else "left")
    for run, metrics in runs.items():
        table.add_row(escape(run), *(f"{metrics[name]:.3f}" for name in summary))
    table.add_row("[bold]mean[/]", *(f"[bold]{mean:.3f}[/]" for mean, _ in summary.values()))
    table.add_row("deviation", *(f"{deviation:.3f}" for _, deviation in summary.values()))
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(title)}[/], {len(runs)} seeds")
    console.print(table)


def comparison(result: dict[str, Any], first: str, second: str) -> None:
    """What training/compare.py found, as text on stdout."""
    a, b = result["accuracy"]
    low, high = result["difference_95"]
    only_a, only_b, p = result["only_first_right"], result["only_second_right"], result["p"]
    verdict = "no difference that these tracks could show"
    if p < 0.05:
        verdict = f"{second if b > a else first} is better (p = {p:.3g})"
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{result['tracks']} tracks that both were judged on")
    console.print(f"  {first}: {a:.1%} right, {only_a} that the other got wrong")
    console.print(f"  {second}: {b:.1%} right, {only_b} that the other got wrong")
    console.print(f"  difference {result['difference']:+.1%}, {interval_of(result)} {low:+.1%} to {high:+.1%}")
    test = "sign-flip test by artist" if _by_artist(result) else "McNemar's exact test"
    console.print(f"  {test}: p = {p:.3g}: {verdict}")


def interval_of(metrics: dict[str, Any]) -> str:
    """What its intervals are: by artist, where more than one track is of a known artist."""
    return "95% interval by artist" if _by_artist(metrics) else "95% interval"


def _by_artist(metrics: dict[str, Any]) -> bool:
    """Whether some tracks were taken together; older cards took each for itself."""
    return bool(metrics.get("groups", metrics["tracks"]) < metrics["tracks"])


def metrics_table(metrics: dict[str, Any], genres: Sequence[str], title: str) -> None:
    """Metrics (see training/metrics.py) as text on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    low, high = metrics["accuracy_95"]
    f_low, f_high = metrics["macro_f1_95"]
    console.print(f"[bold]{escape(title)}[/] ({metrics['tracks']} tracks)")
    console.print(f"  in brackets: {interval_of(metrics)}")
    console.print(f"  accuracy           {metrics['accuracy']:.1%}  \\[{low:.1%}, {high:.1%}]")
    console.print(f"  macro F1           {metrics['macro_f1']:.1%}  \\[{f_low:.1%}, {f_high:.1%}]")
    console.print(f"  log loss           {metrics['log_loss']:.3f}")
    e_low, e_high = metrics["calibration_error_95"]
    s_low, s_high = metrics["surest_60_95"]
    console.print(f"  calibration error  {metrics['calibration_error']:.3f}  \\[{e_low:.3f}, {e_high:.3f}]")
    console.print(f"  on the surest 60%  {metrics['surest_60']:.1%}  \\[{s_low:.1%}, {s_high:.1%}]")
    console.print(f"  told as unknown    {metrics['unknown']:.1%}")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("true genre")
    for name in ("recall", "precision", *(escape(genre[:4]) for genre in genres)):  # 80 columns hold ten genres
        table.add_column(name, justify="right")
    for genre, counts in zip(genres, metrics["confusion"], strict=True):
        score = metrics["genres"][genre]
        cells = [f"[bold]{n}[/]" if g == genre else str(n or "·") for g, n in zip(genres, counts, strict=True)]
        table.add_row(escape(genre), f"{score['recall']:.0%}", f"{score['precision']:.0%}", *cells)
    console.print("\ntracks of each genre (rows), by the genre they were told as (columns):")
    Console(highlight=False, width=max(console.width, 30 + 5 * len(genres))).print(table)
