"""Data set and split -> bundle: train, export, evaluate once on the test set."""

from __future__ import annotations

import importlib
import json
import platform
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from musicclass import plots
from musicclass.bundle import CARD, SIDE_NAMES, Bundle, judged_side, save_bundle
from musicclass.classifier import Classifier
from musicclass.confidence import Confidence, softmax
from musicclass.config import Config, TrainConfig, to_dict
from musicclass.datasets import Dataset
from musicclass.datasets.splits import Split
from musicclass.errors import DatasetError
from musicclass.features import Array
from musicclass.files import write_atomically
from musicclass.printing import progress_bar
from musicclass.training.data import TrackWindows, TrainingWindows, familiar_windows, load_frames
from musicclass.training.evaluate import in_words, predict_tracks, score, write_history
from musicclass.training.export import to_onnx
from musicclass.training.metrics import Ints
from musicclass.training.model import build_model


def train(dataset: Dataset, split: Split, config: Config, out: Path, name: str = "", resume: bool = False) -> Bundle:
    """Train on `dataset` as `split` says, and write the bundle, its history and its pictures into the folder `out`.

    With `resume`, goes on where an interrupted run with the same `out` stopped. Files that can't be used
    are left out, with a warning. Raises DatasetError when `out` is taken, or tracks or settings don't fit.
    """
    checkpoint = out / "checkpoint.npz"
    if (out / CARD).exists():
        raise DatasetError(f"{out} already holds a model; give another --out, or delete it first")
    if checkpoint.exists() and not resume:
        raise DatasetError(f"{out} holds an interrupted run; --resume goes on with it, or delete {checkpoint}")
    frames = load_frames(dataset, (*split.train, *split.valid), config.features)
    train_ids, valid_ids = ([i for i in side if i in frames] for side in (split.train, split.valid))
    if not train_ids or not valid_ids:
        raise DatasetError(f"{dataset.name}: no usable track left to train on or to validate by")
    genres = dataset.genres
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    model, progress = fit(frames, labels, train_ids, valid_ids, genres, config, checkpoint)
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
        "history": progress.history,
        "confidence": confidence.to_dict() | {"fitted_on": f"{len(valid_ids)} validation tracks"},
        "metrics": {},
        "predictions": {},
    }
    _judge(card, dataset, network)
    write_history(out / "history.csv", progress.history)
    plots.save(plots.history(progress.history, card["name"]), out / "history.png")
    side = judged_side(card)
    plots.evaluation(out, genres, card["metrics"][side], f"{card['name']}, {SIDE_NAMES[side]} tracks")
    bundle = save_bundle(out, network, card)  # last, so that a card means a whole model
    checkpoint.unlink(missing_ok=True)
    return bundle


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


@dataclass
class Progress:
    """All that a broken-off run needs to go on, but for the data."""

    config: dict[str, Any]
    train_ids: list[str]
    valid_ids: list[str]
    genres: list[str]
    epoch: int = 0  # epochs that are done
    history: list[dict[str, float]] = field(default_factory=list)

    def add(self, row: dict[str, float]) -> None:
        """Take up an epoch's results."""
        self.epoch += 1
        self.history.append({"epoch": self.epoch, **row})


def fit(
    frames: dict[str, Array],
    labels: dict[str, int],
    train_ids: list[str],
    valid_ids: list[str],
    genres: tuple[str, ...],
    config: Config,
    checkpoint: Path,
    teacher: Callable[[Array], Array] | None = None,
) -> tuple[keras.Model, Progress]:
    """Train for `config.training.epochs`, by which time the learning rate has fallen to nothing.

    Goes on from `checkpoint` where that exists; it is replaced after each epoch. `valid_ids` only show how
    it goes, and may be empty: the weights of the last epoch are returned, whatever these say, with the history.
    With a `teacher`, MFCC -> logits, the network learns to answer as that does, not the labels.
    """
    settings = config.training
    keras.utils.set_random_seed(settings.seed)
    model = build_model(config.model, config.features.n_mfcc, len(genres))
    sounds, answers = [frames[i] for i in train_ids], [labels[i] for i in train_ids]
    windows = TrainingWindows(sounds, answers, len(genres), config, teacher)
    _compile(model, settings, len(windows))
    progress = Progress(to_dict(config), train_ids, valid_ids, list(genres))
    if checkpoint.exists():
        progress = _restore(checkpoint, model, progress)
    valid = TrackWindows([frames[i] for i in valid_ids], config.features)
    truth = np.array([labels[i] for i in valid_ids])
    with progress_bar() as bar:
        task = bar.add_task("Train", total=settings.epochs * len(windows), completed=progress.epoch * len(windows))
        step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: bar.advance(task))
        while progress.epoch < settings.epochs:
            windows.epoch = progress.epoch
            done = model.fit(windows, shuffle=False, callbacks=[step], verbose=0).history
            row = {name: float(done[name][0]) for name in ("loss", "accuracy")}
            progress.add(row | (_validate(model, valid, truth) if valid_ids else {}))
            _save(checkpoint, model, progress)
            bar.console.print(_line(progress, settings))
    return model, progress


def _validate(model: keras.Model, valid: TrackWindows, truth: Ints) -> dict[str, float]:
    probabilities = np.stack([softmax(logits).mean(axis=0) for logits in valid.logits(model.predict_on_batch)])
    return {
        "val_loss": float(-np.log(probabilities[np.arange(len(truth)), truth] + 1e-12).mean()),
        "val_accuracy": float((probabilities.argmax(1) == truth).mean()),
    }


def _compile(model: keras.Model, settings: TrainConfig, steps: int) -> None:
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 25,
        max(1, (settings.epochs - 2) * steps),
        warmup_target=settings.learning_rate,
        warmup_steps=2 * steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


def _line(progress: Progress, settings: TrainConfig) -> str:
    row = progress.history[-1]
    line = f"epoch {progress.epoch}/{settings.epochs}  loss {row['loss']:.3f}  accuracy {row['accuracy']:.1%}"
    if "val_loss" in row:
        line += f"  validation: loss {row['val_loss']:.3f}  accuracy {row['val_accuracy']:.1%}"
    return line


def _save(path: Path, model: keras.Model, progress: Progress) -> None:
    arrays = {f"model_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    with write_atomically(path) as file:
        np.savez(file, progress=json.dumps(asdict(progress)), **arrays)


def _restore(path: Path, model: keras.Model, fresh: Progress) -> Progress:
    try:
        file = np.load(path, allow_pickle=False)
        progress = Progress(**json.loads(str(file["progress"])))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: can't be read ({error}); delete it to start over") from None
    with file:
        if any(getattr(progress, x) != getattr(fresh, x) for x in ("config", "train_ids", "valid_ids", "genres")):
            raise DatasetError(f"{path}: was trained with other settings or tracks; give them again, or delete it")
        for i, variable in enumerate(model.variables):
            variable.assign(file[f"model_{i}"])
        for i, variable in enumerate(model.optimizer.variables):
            variable.assign(file[f"optimizer_{i}"])
    return progress
