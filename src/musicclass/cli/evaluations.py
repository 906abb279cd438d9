"""Evaluations of models, stored or on a data set, and how they are printed on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from musicclass.classifier import Classifier
from musicclass.datasets import Dataset, join, open_dataset
from musicclass.datasets.splits import make_split
from musicclass.errors import escape_control_chars, import_optional
from musicclass.evaluation.evaluate import compute_metrics, evaluate_tracks, mean_and_std, read_predictions
from musicclass.evaluation.report import Evaluation
from musicclass.model_page import interval_name, overlap_warning, share, summary_rows
from musicclass.progress import progress_bar
from musicclass.saved_model import (
    METRICS_PREFERENCE,
    PREDICTIONS,
    SPLIT,
    SUBSET_NAMES,
    SavedModel,
    best_available_metrics,
)
from musicclass.text import plural

MIN_TRACKS = 5  # of a genre, for its metrics


def open_data(data: Path | Sequence[Path], kind: str, artists: Path | None) -> Dataset:
    """The data set, or several as one; its warnings go to stderr."""
    paths = [data] if isinstance(data, Path) else data
    opened = [open_dataset(path, kind, artists) for path in paths]
    tracks = join(opened) if len(opened) > 1 else opened[0]
    for warning in tracks.warnings:
        print(escape_control_chars(f"warning: {warning}"), file=sys.stderr)
    return tracks


def stored_evaluations(model: SavedModel) -> list[Evaluation]:
    """The stored metrics that speak most for new tracks; where these are a summary, further ones in full."""
    records, evaluations = read_predictions(model.path / PREDICTIONS), list[Evaluation]()
    for subset in METRICS_PREFERENCE:
        metrics = model.card["metrics"].get(subset)
        if metrics and not (evaluations and "confusion_matrix" in evaluations[-1].metrics):
            title = f"{model.name}: {SUBSET_NAMES[subset]}, split {model.card['data']['split_name']}"
            evaluations.append(Evaluation(title, subset, metrics, records.get(subset, [])))
    return evaluations


def evaluate(model: SavedModel, dataset: Dataset | None, split: str | None, subset: str) -> list[Evaluation]:
    """The evaluation of a model on a data set, or its stored ones. Raises ModelError when there are none."""
    if dataset is None:
        best_available_metrics(model.card)
        return stored_evaluations(model)
    return [evaluate_on(dataset, model, subset, *choose_tracks(model, dataset, split, subset))]


def choose_tracks(model: SavedModel, dataset: Dataset, split: str | None, subset: str) -> tuple[set[str], str]:
    """The ids of a subset, by default those in the model's split.csv, and a description such as "test, split artist".

    Files may have been added to the data set, or removed, since the model was trained. Where none of its own test
    tracks is there, the tracks that it wasn't trained on are evaluated.
    """
    own = model.card["data"]["split_name"]
    how, present = split or own, {track.id for track in dataset.tracks}
    rows = model.read_table(SPLIT)
    if how == "all":
        return present, "all tracks"
    ids = present & {row["track"] for row in rows if row["split"] == subset}
    unseen = present - {row["track"] for row in rows}
    if split is None and rows and not ids and unseen and subset == "test":
        return unseen, f"{plural(len(unseen), 'track')} that the model wasn't trained on"
    if split or not (ids or rows or own.endswith(".csv")):
        ids = set(make_split(dataset, how, model.card["data"]["split_seed"]).subsets()[subset])
    if not ids:
        raise typer.BadParameter(f"no {subset} tracks of split {how} in {dataset.name}; try --split all")
    return ids, f"{subset}, split {how}"


def evaluate_on(dataset: Dataset, model: SavedModel, subset: str, ids: set[str], description: str) -> Evaluation:
    """Evaluate a model; warns where tracks were used in its training."""
    import_optional("sklearn", "train")
    rows = model.read_table(SPLIT)
    overlap = tuple(sorted(ids & {row["track"] for row in rows if row["split"] in ("train", "valid")}))
    if overlap:
        shares = f"{len(overlap)} of {len(ids)} tracks were used in training {model.name}"
        print(f"warning: {shares}; this is not a test result", file=sys.stderr)
    records = evaluate_tracks(Classifier(model), dataset, ids, progress_bar)
    metrics = compute_metrics(records, model.genres, {row["artist"] for row in rows if row["split"] == "train"})
    return Evaluation(f"{model.name} on {dataset.name}: {description}", subset, metrics, records, overlap)


def show_evaluations(model: SavedModel, evaluations: list[Evaluation]) -> None:
    """Print evaluations of a model as tables."""
    for i, evaluation in enumerate(evaluations):
        print(end="\n" * (i > 0))
        evaluation_table(evaluation, model.genres)


def evaluation_table(evaluation: Evaluation, genres: Sequence[str]) -> None:
    """The metrics of an evaluation, those of them that it has; the confusion matrix with recall and precision."""
    metrics, console = evaluation.metrics, _console()
    tracks = plural(metrics["n_tracks"], "track")
    console.print(f"[bold]{escape(evaluation.title)}[/] ({tracks}; {interval_name(metrics)})")
    for note in (overlap_warning(metrics), metrics.get("note")):
        if note:
            console.print(f"  {escape(note)}")
    for name, value, interval in summary_rows(metrics):
        console.print(f"  {name:<27} {value:>6}  {escape(interval)}".rstrip())
    few = [f"{genre} {s['n_tracks']}" for genre, s in metrics.get("genres", {}).items() if s["n_tracks"] < MIN_TRACKS]
    if few:
        console.print(escape(f"  too few tracks (under {MIN_TRACKS}) for metrics of a genre: {', '.join(few)}"))
    if "confusion_matrix" in metrics:
        console.print("\nLabels (rows) and predicted genres (columns), in tracks:")
        Console(highlight=False, width=max(console.width, 30 + 5 * len(genres))).print(_confusion(metrics, genres))


def show_runs(runs: dict[str, Evaluation], as_json: bool) -> None:
    """Print the metrics of runs that differ in their seed, with mean and standard deviation."""
    metrics = {name: evaluation.metrics for name, evaluation in runs.items()}
    summary = mean_and_std(list(metrics.values()))
    if as_json:
        print(json.dumps({"runs": metrics, "mean_and_std": summary}))
        return
    table = _table()
    for name in ("", *summary):
        table.add_column(name.replace("_", " "), justify="right" if name else "left")
    for run, values in metrics.items():
        table.add_row(escape(run), *(f"{values[name]:.3f}" for name in summary))
    table.add_row("[bold]mean[/]", *(f"[bold]{mean:.3f}[/]" for mean, _ in summary.values()))
    table.add_row("std", *(f"{std:.3f}" for _, std in summary.values()))
    console = _console()
    console.print(f"[bold]{escape(next(iter(runs.values())).title)}[/], {len(runs)} seeds")
    console.print(table)


def comparison_table(result: dict[str, Any], first: str, second: str) -> None:
    """The result of evaluation.significance.compare."""
    from musicclass.evaluation.significance import MIN_ARTISTS

    a, b = result["accuracy"]
    low, high = result["difference_ci95"]
    p, by_artist = result["p_value"], result["n_artists"] < result["n_tracks"]
    conclusion = f"{second if b > a else first} is better" if p < 0.05 else "no significant difference"
    if result["n_artists"] < MIN_ARTISTS:
        unit = "artist" if by_artist else "track"
        conclusion = f"{plural(result['n_artists'], unit)}: too few for a conclusion; evaluate {MIN_ARTISTS} or more"
    test = "sign-flip test by artist" if by_artist else "McNemar's exact test"
    console = _console()
    console.print(f"{plural(result['n_tracks'], 'track')} in common")
    for name, accuracy, only in ((first, a, result["only_a_correct"]), (second, b, result["only_b_correct"])):
        tracks = plural(only, "track")
        console.print(f"  {escape(name)}: accuracy {accuracy:.1%}, {tracks} that only it predicts correctly")
    console.print(f"  difference {b - a:+.1%}, {interval_name(result)} {escape(f'[{low:+.1%}, {high:+.1%}]')}")
    console.print(f"  {test}: p = {p:.3g}: {escape(conclusion)}")


def _confusion(metrics: dict[str, Any], genres: Sequence[str]) -> Table:
    table = _table()
    table.add_column("label")
    for name in ("recall", "precision", *(escape(genre[:4]) for genre in genres)):  # ten genres fit into 80 columns
        table.add_column(name, justify="right")
    for genre, counts in zip(genres, metrics["confusion_matrix"], strict=True):
        scores = metrics["genres"][genre]
        cells = [f"[bold]{n}[/]" if g == genre else str(n or "·") for g, n in zip(genres, counts, strict=True)]
        n_predicted = sum(row[len(table.rows)] for row in metrics["confusion_matrix"])
        recall, precision = share(scores, "recall", scores["n_tracks"]), share(scores, "precision", n_predicted)
        table.add_row(escape(genre), recall, precision, *cells)
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, emoji=False)
