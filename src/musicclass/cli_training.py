"""The commands for training and what belongs to it: train, evaluate, compare, features."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from musicclass.errors import printable, require

if TYPE_CHECKING:
    from musicclass.bundle import Bundle
    from musicclass.datasets import Dataset

app = typer.Typer()


class Side(StrEnum):
    """The part of a split that is evaluated."""

    train = "train"
    valid = "valid"
    test = "test"


SplitOption = Annotated[str, typer.Option(help="random, artist, filtered, or FILE.csv (track, split).")]
KindOption = Annotated[str, typer.Option("--dataset", help="archive, gtzan, folder, labels, or auto.")]
ArtistsOption = Annotated[Path | None, typer.Option(help="CSV (track, artist) for a folder or labels.")]
ConfigOption = Annotated[str | None, typer.Option("--config", help="default, student, or a TOML file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as training.epochs=50.")]
DataArgument = Annotated[
    Path, typer.Argument(help="GTZAN, a folder with a sub-folder per genre, an archive, or a CSV.")
]


@app.command()
def train(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model, its card and its pictures.")],
    split: SplitOption = "random",
    split_seed: Annotated[int, typer.Option(help="Another seed is another random or artist split.")] = 42,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
    name: Annotated[str, typer.Option(help="The model's name; by default its folder's.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="So many models, each with other seeds, in folders below OUT.")] = 1,
) -> None:
    """Train a model on tracks whose genre is known, and evaluate it once on its test tracks."""
    from musicclass.config import load_config, with_seed

    chosen = load_config(config, tuple(settings or ()))
    from musicclass.datasets.splits import make_split

    tracks = _opened(data, dataset, artists)
    parts = make_split(tracks, split, split_seed)
    counts = ", ".join(f"{len(ids)} {side}" for side, ids in parts.sides().items())
    print(f"{tracks.name}: {len(tracks.genres)} genres; split {parts.name}: {counts}", file=sys.stderr)
    _prepare_keras()
    from musicclass.training import train as training

    try:
        for i in range(seeds):
            folder, config_of_run = out, chosen
            if seeds > 1:
                first = 1 + i * chosen.model.members  # no two models shall share a network's seed
                folder, config_of_run = out / f"seed-{first}", with_seed(chosen, first)
                if (folder / "card.json").exists() and resume:
                    continue
            bundle = training.train(tracks, parts, config_of_run, folder, name, resume)
            _show(bundle, *_from_card(bundle))
    except (KeyboardInterrupt, RuntimeError) as error:
        if "KeyboardInterrupt" not in repr(error):  # TensorFlow may hand it on as an error of its own
            raise
        print(f"interrupted; the same command with --resume goes on where {out} stopped", file=sys.stderr)
        raise KeyboardInterrupt from None
    if seeds > 1:
        print(f"{out} written; try: musicclass evaluate {out}", file=sys.stderr)
    else:
        print(f"{out} written; try: musicclass predict --model {out.resolve()} FILE", file=sys.stderr)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A folder made by `train`, with --seeds or without, or a name.")],
    data: Annotated[Path | None, typer.Argument(help="As for `train`; without it, what the card holds.")] = None,
    split: Annotated[str | None, typer.Option(help="As for `train`, or all; by default the model's own.")] = None,
    side: Annotated[Side, typer.Option(help="The part of the split.")] = Side.test,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
    plots_to: Annotated[Path | None, typer.Option("--plots", help="Folder for the pictures.")] = None,
    report: Annotated[Path | None, typer.Option(help="One HTML page (.html) with all numbers and pictures.")] = None,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Show how good a model is: on DATA, or by what its card says. Of several seeds: mean and deviation."""
    from musicclass.bundle import load_bundle, seed_folders

    runs = seed_folders(Path(bundle))
    if report and (report.suffix.lower() != ".html" or runs):
        raise typer.BadParameter("--report is for one model; its file ends in .html")
    if plots_to and runs:
        raise typer.BadParameter("--plots is for one model")
    _refuse_without_data(data, split, side, dataset, artists)
    models = [load_bundle(path) for path in runs] or [load_bundle(bundle)]
    if data or runs:
        require("sklearn", "train")
    tracks = _opened(data, dataset, artists) if data else None
    if not runs:
        _show(models[0], *_found(models[0], tracks, split, side), as_json, plots_to, report)
        return
    from musicclass.printing import seeds_table
    from musicclass.training.evaluate import mean_and_deviation

    judged = {path.name: _found(model, tracks, split, side) for path, model in zip(runs, models, strict=True)}
    metrics = {name: found["metrics"] for name, (found, _) in judged.items()}
    if as_json:
        print(json.dumps({"runs": metrics, "mean_and_deviation": mean_and_deviation(list(metrics.values()))}))
    else:
        seeds_table(metrics, mean_and_deviation(list(metrics.values())), next(iter(judged.values()))[1])


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A folder made by `train`, or a name that ships.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    data: Annotated[Path | None, typer.Argument(help="As for `train`; without it, what the cards hold.")] = None,
    split: Annotated[str | None, typer.Option(help="As for `train`, or all; by default the first model's own.")] = None,
    side: Annotated[Side, typer.Option(help="The part of the split.")] = Side.test,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Say whether the second model is better than the first on the same tracks: difference, interval and p."""
    from musicclass.bundle import JUDGED, judged_side, load_bundle
    from musicclass.printing import comparison

    _refuse_without_data(data, split, side, dataset, artists)
    require("sklearn", "train")
    from musicclass.training.compare import compare as compared

    models = load_bundle(first), load_bundle(second)
    if data:
        asked = _asked(models[0], _opened(data, dataset, artists), split, side)
        rows = [_judged(model, asked)["predictions"] for model in models]
    else:
        common = [s for s in JUDGED if all(m.card["predictions"].get(s) for m in models)]
        sides = common[:1] * 2 or [judged_side(model.card) for model in models]
        rows = [model.card["predictions"][name] for model, name in zip(models, sides, strict=True)]
    result = compared(rows[0], rows[1], models[0].genres, models[1].genres)
    if as_json:
        print(json.dumps({"first": first, "second": second, **result}))
    else:
        comparison(result, first, second)


def _refuse_without_data(data: Path | None, split: str | None, side: Side, kind: str, artists: Path | None) -> None:
    if data is None and (split or side is not Side.test or kind != "auto" or artists):
        raise typer.BadParameter("--split, --side, --dataset and --artists are about DATA, which is missing")


class Asked(NamedTuple):
    """The tracks that models are judged by."""

    dataset: Dataset
    ids: set[str]
    what: str  # such as "test of filtered"


def _opened(data: Path, kind: str, artists: Path | None) -> Dataset:
    """The data set; tells its notes on stderr."""
    from musicclass.datasets import open_dataset

    tracks = open_dataset(data, kind, artists)
    for note in tracks.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    return tracks


def _asked(model: Bundle, tracks: Dataset, split: str | None, side: Side) -> Asked:
    """The tracks on a side of a split: by default, those that stand in the model's card."""
    from musicclass.datasets.splits import make_split

    own = model.card["data"]["split_name"]
    how, here = split or own, {track.id for track in tracks.tracks}
    if how == "all":
        return Asked(tracks, here, "all tracks")
    ids = here & set(model.card["data"]["split"][side.value])  # the very tracks: files may have come since
    if split or (not ids and not own.endswith(".csv")):
        ids = set(make_split(tracks, how, model.card["data"]["split_seed"]).sides()[side.value])
    if not ids:
        raise typer.BadParameter(f"no {side.value} tracks of split {how} in {tracks.name}; try --split all")
    return Asked(tracks, ids, f"{side.value} of {how}")


def _found(model: Bundle, tracks: Dataset | None, split: str | None, side: Side) -> tuple[dict[str, Any], str]:
    """A model's metrics and predictions, on tracks or from its card; and a title."""
    if tracks is None:
        return _from_card(model)
    asked = _asked(model, tracks, split, side)
    return _judged(model, asked), f"{model.name} on {tracks.name}, {asked.what}"


def _judged(model: Bundle, asked: Asked) -> dict[str, Any]:
    """A model's metrics and predictions on these tracks; says so where it has seen some."""
    from musicclass.classifier import Classifier
    from musicclass.training import evaluate as evaluation

    seen = evaluation.seen_in_training(model.card, asked.ids)
    if seen:
        print(
            f"{len(seen)} of these {len(asked.ids)} tracks trained or chose {model.name}: this is no test result",
            file=sys.stderr,
        )
    rows = evaluation.predict_tracks(Classifier(model), asked.dataset, asked.ids)
    return {"metrics": evaluation.score(rows, model.genres), "predictions": rows, "seen_in_training": seen}


@app.command()
def features(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The archive (.npz) to write.")],
    config: ConfigOption = None,
    settings: SetOption = None,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Write the log-mel features of a data set into one archive, which `train` and `evaluate` read."""
    from musicclass.config import load_config
    from musicclass.datasets import archive
    from musicclass.printing import progress

    if out.suffix != ".npz":
        raise typer.BadParameter(f"{out}: archives end in .npz")
    chosen = load_config(config, tuple(settings or ())).features
    tracks = _opened(data, dataset, artists)
    count = archive.write(out, tracks.usable(progress(tracks.tracks, "Features"), chosen), chosen)
    print(f"{out}: {count} of {len(tracks.tracks)} tracks", file=sys.stderr)
    if count < len(tracks.tracks):
        raise typer.Exit(1)


def _prepare_keras() -> None:
    """Keras on TensorFlow, unless $KERAS_BACKEND says otherwise, and without TensorFlow's chatter."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for module in ("sklearn", "matplotlib", "onnx", "tf2onnx", "tensorflow"):
        if importlib.util.find_spec(module) is None:
            require(module, "train")
    require("keras", "train")


def _from_card(model: Bundle) -> tuple[dict[str, Any], str]:
    """What the card holds: the test result, or another one with a word about it."""
    from musicclass.bundle import SIDE_NAMES, judged_side

    card = model.card
    side = judged_side(card)
    if side != "test":
        print("no test result yet: tracks like these chose the settings, so new ones may do worse", file=sys.stderr)
    title = f"{model.name}: {SIDE_NAMES[side]} tracks of split {card['data']['split_name']}"
    return {"metrics": card["metrics"][side], "predictions": card["predictions"][side]}, title


def _show(
    model: Bundle,
    found: dict[str, Any],
    title: str,
    as_json: bool = False,
    plots_to: Path | None = None,
    report: Path | None = None,
) -> None:
    from musicclass.printing import metrics_table

    metrics = found["metrics"]
    if as_json:
        more = {name: value for name, value in found.items() if name != "metrics"}
        print(json.dumps({"title": title, **metrics, **more}))
    else:
        metrics_table(metrics, model.genres, title)
    if plots_to:
        from musicclass import plots

        for path in plots.evaluation(plots_to, model.genres, metrics, title):
            print(f"{path} written", file=sys.stderr)
    if report:
        from musicclass.files import write_text

        require("matplotlib", "plot")
        from musicclass.training.report import page

        write_text(report, page(model.card, metrics, found["predictions"], title))
        print(f"{report} written", file=sys.stderr)
