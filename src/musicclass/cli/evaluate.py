"""`musicclass evaluate` and `musicclass compare`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from musicclass.cli.options import ArtistsOption, KindOption
from musicclass.errors import DatasetError, import_optional

Subset = Literal["train", "valid", "test"]
MODEL_HELP = "Folder of a saved model, or name of a pretrained model."
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
DataArgument = Annotated[
    Path | None, typer.Argument(help="As for `train`; by default, the model's stored results.", metavar="DATA")
]
SplitOption = Annotated[str | None, typer.Option(help="As for `train`, or all; by default, the (first) model's own.")]
SubsetOption = Annotated[Subset, typer.Option(help="Subset of the split.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")]


def evaluate(
    model: ModelArgument,
    data: DataArgument = None,
    split: SplitOption = None,
    subset: SubsetOption = "test",
    as_json: JsonOption = False,
    plots_to: Annotated[Path | None, typer.Option("--plots", help="Folder for plots.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML page (.html) with all metrics and plots.")] = None,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Show a model's stored metrics, or compute them on DATA. Of several seeds, show mean and standard deviation."""
    from musicclass.cli import evaluations
    from musicclass.saved_model import HISTORY, load_model, seed_runs

    runs = seed_runs(Path(model))
    if report and (report.suffix.lower() != ".html" or runs):
        raise typer.BadParameter("--report is for one model; its file ends in .html")
    if plots_to and runs:
        raise typer.BadParameter("--plots is for one model")
    _check_data_options(data, split, subset, dataset, artists)
    tracks = evaluations.open_data(data, dataset, artists) if data else None
    if runs:
        results = {run.name: evaluations.evaluate(load_model(run), tracks, split, subset)[0] for run in runs}
        evaluations.show_runs(results, as_json)
        return
    saved = load_model(model)
    items = evaluations.evaluate(saved, tracks, split, subset)
    if as_json:
        print(json.dumps({"model": saved.name, "evaluations": [asdict(item) for item in items]}))
    else:
        evaluations.show_evaluations(saved, items)
    if plots_to:
        from musicclass import plots

        for path in plots.evaluation(plots_to, saved.genres, items[-1].metrics, items[-1].title):
            print(f"{path} written", file=sys.stderr)
    if report:
        from musicclass.evaluation.report import render_report
        from musicclass.files import write_text

        write_text(report, render_report(saved.card, items, saved.read_table(HISTORY)))
        print(f"{report} written", file=sys.stderr)


def compare(
    first: Annotated[str, typer.Argument(help=MODEL_HELP, metavar="FIRST")],
    second: Annotated[str, typer.Argument(help=MODEL_HELP, metavar="SECOND")],
    data: DataArgument = None,
    split: SplitOption = None,
    subset: SubsetOption = "test",
    as_json: JsonOption = False,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Compare two models on the same tracks. Shows accuracies and a paired significance test."""
    from musicclass.saved_model import METRICS_PREFERENCE, PREDICTIONS, load_model

    _check_data_options(data, split, subset, dataset, artists)
    import_optional("scipy", "train")
    from musicclass.cli import evaluations
    from musicclass.evaluation.evaluate import read_predictions
    from musicclass.evaluation.significance import compare as compare_records

    models = load_model(first), load_model(second)
    if data:
        tracks = evaluations.open_data(data, dataset, artists)
        ids, description = evaluations.choose_tracks(models[0], tracks, split, subset)
        records = [evaluations.evaluate_on(tracks, model, subset, ids, description).records for model in models]
    else:
        stored = [read_predictions(model.path / PREDICTIONS) for model in models]
        common = [name for name in METRICS_PREFERENCE if all(name in tables for tables in stored)]
        if not common:
            raise DatasetError("the models have no stored predictions in common; give the DATA to evaluate them on")
        records = [tables[common[0]] for tables in stored]
    result = compare_records(*records)
    if as_json:
        print(json.dumps({"first": first, "second": second, **result}))
    else:
        evaluations.comparison_table(result, first, second)


def _check_data_options(data: Path | None, split: str | None, subset: Subset, kind: str, artists: Path | None) -> None:
    if data is None and (split or subset != "test" or kind != "auto" or artists):
        raise typer.BadParameter("--split, --subset, --dataset and --artists need DATA")
