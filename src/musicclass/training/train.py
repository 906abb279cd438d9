"""Data set and split -> bundle: train, export, evaluate once on the test set."""

from __future__ import annotations

import importlib
import platform
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from musicclass import plots
from musicclass.bundle import CARD, SIDE_NAMES, Bundle, judged_side, save_bundle
from musicclass.classifier import Classifier
from musicclass.confidence import Confidence
from musicclass.config import Config, to_dict, with_seed
from musicclass.datasets import Dataset
from musicclass.datasets.splits import Split, refuse_leaks
from musicclass.errors import DatasetError
from musicclass.features import Array
from musicclass.training.data import TrackWindows, familiar_windows, load_frames
from musicclass.training.evaluate import in_words, predict_tracks, score, write_history
from musicclass.training.export import to_onnx
from musicclass.training.fit import fit, parts, pretrain
from musicclass.training.model import ensemble


def train(dataset: Dataset, split: Split, config: Config, out: Path, name: str = "", resume: bool = False) -> Bundle:
    """Train on `dataset` as `split` says, and write the bundle, its history and its pictures into the folder `out`.

    With `resume`, goes on where an interrupted run with the same `out` stopped. Files that can't be used
    are left out, with a warning. Raises DatasetError when `out` is taken, or tracks or settings don't fit, LeakError
    when a track or a replica of it is on two sides.
    """
    if (out / CARD).exists():
        raise DatasetError(f"{out} already holds a model; give another --out, or delete it first")
    if not resume and (begun := checkpoints(out)):
        names = ", ".join(map(str, begun))
        raise DatasetError(f"{out} holds an interrupted run; --resume goes on with it, or delete {names}")
    refuse_leaks(split, dataset.tracks, artists=False)
    frames = load_frames(dataset, (*split.train, *split.valid), config.features)
    train_ids, valid_ids = ([i for i in side if i in frames] for side in (split.train, split.valid))
    if not train_ids or not valid_ids:
        raise DatasetError(f"{dataset.name}: no usable track left to train on or to validate by")
    genres = dataset.genres
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    fitted = []
    for part in parts(config):
        number = part.training.seed - config.training.seed + 1
        checkpoint, start = out / f"checkpoint-{part.model.network}-{number}.npz", None
        if part.training.pretraining and not checkpoint.exists():  # one for all networks of the kind
            first = with_seed(part, config.training.seed)
            start = pretrain([frames[i] for i in train_ids], train_ids, first, out / "checkpoint-pretraining.npz")
        fitted.append(fit(frames, labels, train_ids, valid_ids, genres, part, checkpoint, start))
    model = ensemble(config.model, config.features.n_mfcc, len(genres), [one.get_weights() for one, _ in fitted])
    history = fitted[0][1].history
    network = to_onnx(model, config.model, config.features.n_mfcc, len(genres))
    confidence = _confidence(model, frames, labels, train_ids, valid_ids, config)
    sides = {"train": train_ids, "valid": valid_ids, "test": list(split.test)}
    card: dict[str, Any] = {
        "name": name or out.resolve().name,
        "genres": list(genres),
        "config": to_dict(config),
        "data": data_of(dataset, split, sides),
        "versions": versions(),
        "parameters": model.count_params(),
        "history": history,
        "confidence": confidence.to_dict() | {"fitted_on": f"{len(valid_ids)} validation tracks"},
        "metrics": {},
        "predictions": {},
    }
    _judge(card, dataset, network)
    write_history(out / "history.csv", history)
    plots.save(plots.history(history, card["name"]), out / "history.png")
    side = judged_side(card)
    plots.evaluation(out, genres, card["metrics"][side], f"{card['name']}, {SIDE_NAMES[side]} tracks")
    bundle = save_bundle(out, network, card)  # last, so that a card means a whole model
    for checkpoint in checkpoints(out):
        checkpoint.unlink()
    return bundle


def checkpoints(out: Path) -> list[Path]:
    """What an interrupted run left in the folder `out`."""
    return sorted(out.glob("checkpoint-*.npz"))


def data_of(dataset: Dataset, split: Split, sides: dict[str, list[str]]) -> dict[str, Any]:
    """What a card says of the data: the tracks of each side are those that were used, not all of the split's."""
    return {
        "name": dataset.name,
        "notes": list(dataset.notes),
        "split_name": split.name,
        "split_seed": split.seed,
        "counts": {side: len(ids) for side, ids in sides.items()},
        "split": sides,
    }


def _confidence(
    model: keras.Model,
    frames: dict[str, Array],
    labels: dict[str, int],
    train_ids: list[str],
    valid_ids: list[str],
    config: Config,
) -> Confidence:
    """Fitted on the validation tracks, which the network never trained on."""
    learnt = familiar_windows([frames[i] for i in train_ids], config.features)
    held_out = TrackWindows([frames[i] for i in valid_ids], config.features)
    logits = held_out.logits(model.predict_on_batch)
    return Confidence.fit(learnt, held_out.tracks, logits, np.array([labels[i] for i in valid_ids]))


def _judge(card: dict[str, Any], dataset: Dataset, network: bytes) -> None:
    """Let the exported network predict the validation and, once, the test tracks; complete the card."""
    with tempfile.TemporaryDirectory() as folder:
        classifier = Classifier(save_bundle(Path(folder), network, card))
    for side in ("valid", "test"):
        ids = card["data"]["split"][side]
        if ids:
            card["predictions"][side] = predict_tracks(classifier, dataset, ids)
            card["metrics"][side] = score(card["predictions"][side], classifier.genres)
    card["about"] = _about(card)


def _about(card: dict[str, Any]) -> str:
    """In plain words, what the model saw and how good it is."""
    data, metrics = card["data"], card["metrics"]
    counts = {side: len(ids) for side, ids in data["split"].items()}
    told = {side: in_words(found, SIDE_NAMES[side]) for side, found in metrics.items()}
    return (
        f"Trained on {counts['train']} tracks of {data['name']} (split {data['split_name']}), chosen by its results on "
        f"{counts['valid']} validation tracks. Right on {told['valid']}, which flatters it, as they chose it. "
        + (f"Right on {told['test']}." if "test" in told else "Its test result is still to come.")
    )


def versions() -> dict[str, str]:
    """What the training ran on."""
    import musicclass

    names = ("keras", "numpy", "scipy", "sklearn", "onnx", "onnxruntime", keras.backend.backend())
    found = {name: getattr(importlib.import_module(name), "__version__", "?") for name in names}
    return {"musicclass": musicclass.__version__, "python": platform.python_version(), **found}
