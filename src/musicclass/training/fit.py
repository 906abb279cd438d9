"""Training of one network, epoch by epoch, that can be interrupted: on genres, and before that without any."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from musicclass.confidence import Ints, softmax
from musicclass.config import Config, TrainConfig, to_dict, with_seed
from musicclass.errors import ConfigError, DatasetError
from musicclass.features import Array
from musicclass.files import write_atomically
from musicclass.printing import progress_bar
from musicclass.training.data import PairedWindows, ShiftedWindows, TrackWindows, TrainingWindows, Windows
from musicclass.training.discriminant import solve
from musicclass.training.model import build_model, trunk

TRACKS_COMPARED = 64  # at once, while pretraining: more are told apart harder
TEMPERATURE = 0.2  # of their likeness


def parts(config: Config) -> list[Config]:
    """A configuration for each network in the one that `config` describes, as they are trained one by one.

    Networks of a kind differ by their seeds, and in hearing means. The one on statistics is solved at once.
    """
    found = []
    for kind in config.model.kinds:
        training = config.training
        if kind[0].network == "statistics":
            training = replace(training, epochs=1, pretraining=0)
        ones = [replace(config, model=model, training=training) for model in kind]
        found += [with_seed(one, training.seed + i) for i, one in enumerate(ones)]
    return found


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
    start: Sequence[Array] | None = None,
) -> tuple[keras.Model, Progress]:
    """Train for `config.training.epochs`, by which time the learning rate has fallen to nothing; solve statistics.

    Goes on from `checkpoint` where that exists; it is replaced after each epoch. `valid_ids` only show how
    it goes, and may be empty: the weights of the last epoch are returned, whatever these say, with the history.
    Raises ConfigError when the loss is no number any more.
    `start`: what `pretrain` returned, for a network that shall not begin at random.
    """
    settings = config.training
    keras.utils.set_random_seed(settings.seed)
    model = build_model(config.model, config.features.n_mfcc, len(genres))
    if start is not None:
        trunk(model).set_weights(start)
    windows = TrainingWindows([frames[i] for i in train_ids], [labels[i] for i in train_ids], len(genres), config)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing)
    valid = TrackWindows([frames[i] for i in valid_ids], config.features)
    truth = np.array([labels[i] for i in valid_ids])
    _compile(model, settings, len(windows), loss)
    progress = Progress(to_dict(config), train_ids, valid_ids, list(genres))
    judge = (lambda: _validate(model, valid, truth)) if valid_ids else dict

    def solved() -> dict[str, list[float]]:
        heard, learnt = TrackWindows(windows.frames, config.features), np.array([labels[i] for i in train_ids])
        solve(model, heard, ShiftedWindows(windows.frames, config), learnt, config.model.shrinkage)
        return {name.removeprefix("val_"): [value] for name, value in _validate(model, heard, learnt).items()}

    at_once = solved if config.model.network == "statistics" else None
    return model, _run("Train", model, windows, progress, checkpoint, judge, at_once)


def pretrain(frames: Sequence[Array], ids: list[str], config: Config, checkpoint: Path) -> list[Array]:
    """Weights of all but the last layer, learnt from tracks alone, in `config.training.pretraining` epochs.

    Two windows of a track, each altered in its own way, shall be more alike than windows of two tracks: SimCLR (Chen et
    al. 2020) with the tracks as labels (Khosla et al. 2020). With means, also for networks that go on without: what is
    learnt without is worth less (docs/experiments.md). Goes on from `checkpoint` where that exists. Raises ConfigError
    when the loss is no number any more.
    """
    settings = replace(config.training, epochs=config.training.pretraining, batch_size=TRACKS_COMPARED)
    config = replace(config, training=settings, model=replace(config.model, subtract_mean=False))
    keras.utils.set_random_seed(settings.seed)
    kept = trunk(build_model(config.model, config.features.n_mfcc, 1))
    projection = keras.layers.Dense(64)(keras.layers.Dense(128, activation="relu")(kept.output))
    model = keras.Model(kept.inputs, projection)
    windows = PairedWindows(frames, config)
    _compile(model, settings, len(windows), _contrast)
    _run("Pretrain", model, windows, Progress(to_dict(config), ids, [], []), checkpoint, dict)
    weights: list[Array] = kept.get_weights()
    return weights


def _contrast(tracks: Any, vectors: Any) -> Any:
    """For each vector (batch, n), how badly those of the same track are told from all others: (batch,)."""
    ops = keras.ops
    vectors = vectors * ops.rsqrt(ops.sum(vectors * vectors, axis=1, keepdims=True) + 1e-12)  # one may be all zeros
    itself = ops.eye(ops.shape(vectors)[0], dtype=vectors.dtype)
    likeness = ops.log_softmax(ops.matmul(vectors, ops.transpose(vectors)) / TEMPERATURE - 1e9 * itself)
    tracks = ops.reshape(tracks, (-1, 1))
    same = ops.cast(ops.equal(tracks, ops.transpose(tracks)), vectors.dtype) - itself
    return -ops.sum(same * likeness, axis=1) / ops.sum(same, axis=1)


def _run(
    name: str,
    model: keras.Model,
    windows: Windows,
    progress: Progress,
    checkpoint: Path,
    judge: Callable[[], dict[str, float]],
    solved: Callable[[], dict[str, list[float]]] | None = None,
) -> Progress:
    """Train until all epochs are done, each by `solved` where that is given; a checkpoint and a line after each."""
    settings, what = windows.config.training, f"{name} {windows.config.model.network}"
    if checkpoint.exists():
        progress = _restore(checkpoint, model, progress)
    with progress_bar() as bar:
        task = bar.add_task(what, total=settings.epochs * len(windows), completed=progress.epoch * len(windows))
        bar.console.print(f"{what}: {settings.epochs} epoch{'s' * (settings.epochs > 1)}")
        step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: bar.advance(task))
        while progress.epoch < settings.epochs:
            windows.epoch = progress.epoch
            done = solved() if solved else model.fit(windows, shuffle=False, callbacks=[step], verbose=0).history
            progress.add({name: float(values[0]) for name, values in done.items()} | judge())
            if not np.isfinite(progress.history[-1]["loss"]):
                raise ConfigError(
                    f"{what}: the loss is no number any more in epoch {progress.epoch}; "
                    f"try a training.learning_rate below {settings.learning_rate:g}"
                )
            _save(checkpoint, model, progress)
            bar.console.print(_line(progress, settings))
    return progress


def _validate(model: keras.Model, valid: TrackWindows, truth: Ints) -> dict[str, float]:
    probabilities = softmax(np.stack([logits.mean(axis=0) for logits in valid.logits(model.predict_on_batch)]))
    return {
        "val_loss": float(-np.log(probabilities[np.arange(len(truth)), truth] + 1e-12).mean()),
        "val_accuracy": float((probabilities.argmax(1) == truth).mean()),
    }


def _compile(model: keras.Model, settings: TrainConfig, steps: int, loss: Any) -> None:
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 25,
        max(1, (settings.epochs - 2) * steps),
        warmup_target=settings.learning_rate,
        warmup_steps=2 * steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay),
        loss=loss,
        metrics=[] if loss is _contrast else ["accuracy"],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


def _line(progress: Progress, settings: TrainConfig) -> str:
    row = progress.history[-1]
    line = f"epoch {progress.epoch}/{settings.epochs}  loss {row['loss']:.3f}"
    if "accuracy" in row:
        line += f"  accuracy {row['accuracy']:.1%}"
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
