"""Training of a model's networks with Keras. An interrupted run resumes, and ends with the same weights."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from musicclass import plots
from musicclass.config import Config, to_dict
from musicclass.errors import ConfigError, DatasetError, import_optional
from musicclass.files import write_text
from musicclass.saved_model import HISTORY
from musicclass.training.batches import ContrastiveBatches, LabelledBatches, WindowBatches
from musicclass.training.calibration import artist_folds, log_loss
from musicclass.training.ensemble import (
    backbone,
    build_network,
    build_pretraining,
    network_configs,
    pretraining_config,
    supervised_contrastive_loss,
)
from musicclass.training.lda import fit_lda
from musicclass.training.networks import History, Monitor, Step, Trained
from musicclass.training.ood import Ints
from musicclass.training.tracks import LabelledTracks, WindowedTracks, mean_logits

BACKUP, RUN, LDA_WEIGHTS = "backup", "run.json", "lda.weights.h5"  # in a network's folder
WARMUP_EPOCHS = 2


def train_keras_networks(
    config: Config, tracks: LabelledTracks, valid: LabelledTracks | None, work: Path, monitor: Monitor
) -> dict[str, list[Trained]]:
    """As networks.train_networks, for the branches that are Keras networks."""
    trained: dict[str, list[Trained]] = {}
    for branch, configs in network_configs(config).items():
        for each in configs:
            folder = work / f"{branch}-{each.training.seed}"
            _claim(folder, each, tracks, None if branch == "lda" else valid)
            if branch == "lda":
                result = Trained(_solve_lda(each, tracks, folder, monitor), each, [])
            else:
                pretrained = None
                if each.training.pretrain_epochs:
                    start = pretraining_config(configs[0])
                    pretrained = _pretrain(start, tracks, work / f"{branch}-pretraining", monitor)
                result = _train_network(each, tracks, valid, folder, pretrained, monitor)
            trained.setdefault(branch, []).append(result)
    return trained


def _train_network(
    config: Config,
    tracks: LabelledTracks,
    valid: LabelledTracks | None,
    folder: Path,
    pretrained: list[Any] | None,
    monitor: Monitor,
) -> Trained:
    """Train a network from random weights, or from those of a `pretrained` backbone."""
    keras.utils.set_random_seed(config.training.seed)
    network = build_network(config, len(tracks.genres))
    if pretrained is not None:
        backbone(network).set_weights(pretrained)
    smoothing = config.training.label_smoothing
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    return Trained(network, config, _fit(network, LabelledBatches(tracks, config), loss, folder, monitor, valid))


def _pretrain(config: Config, tracks: LabelledTracks, folder: Path, monitor: Monitor) -> list[Any]:
    """Weights of a pretrained backbone."""
    _claim(folder, config, tracks, None)
    keras.utils.set_random_seed(config.training.seed)
    model, trunk = build_pretraining(config)
    _fit(model, ContrastiveBatches(tracks, config), supervised_contrastive_loss, folder, monitor)
    return list(trunk.get_weights())


def _solve_lda(config: Config, tracks: LabelledTracks, folder: Path, monitor: Monitor) -> keras.Model:
    name = f"{monitor.prefix}lda"
    monitor.report(Step(name, 0, 1, {}))
    network = build_network(config, len(tracks.genres))
    if (folder / LDA_WEIGHTS).exists():
        _load(network, folder / LDA_WEIGHTS)
    else:
        windows, shifted = WindowedTracks.of(tracks, config.features), WindowedTracks.shifted(tracks, config)
        folds = artist_folds(tracks.tracks)
        fit_lda(network, windows, shifted, tracks.labels, folds, config.model.lda_shrinkage)
        network.save_weights(folder / LDA_WEIGHTS)
    monitor.report(Step(name, 1, 1, {}))
    return network


def _fit(
    model: keras.Model,
    batches: WindowBatches,
    loss: Any,
    folder: Path,
    monitor: Monitor,
    valid: LabelledTracks | None = None,
) -> History:
    """Train for `training.epochs`, or resume from the state in `folder`."""
    settings, name = batches.config.training, f"{monitor.prefix}{model.name}"
    _compile(model, batches, loss)
    latest = folder / BACKUP / "latest.weights.h5"
    if latest.exists() and not latest.with_name(f"{latest.name}.bkp").exists():  # else Keras falls back on that
        _load(model, latest)
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: _set_seeds(model, batches, epoch))]
    if valid:
        windows, labels = WindowedTracks.of(valid, batches.config.features), valid.labels
        update = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(_validate(model, windows, labels))
        )
        callbacks.append(update)
    callbacks += [
        keras.callbacks.TerminateOnNaN(raise_error=True),
        keras.callbacks.CSVLogger(str(folder / HISTORY), append=True),
        keras.callbacks.BackupAndRestore(str(folder / BACKUP), double_checkpoint=True, delete_checkpoint=False),
        _report_progress(monitor, name, batches),
    ]
    if monitor.history:
        callbacks.append(_plot_history(folder / HISTORY, monitor.history, name))
    if monitor.tensorboard:
        import_optional("tensorboard", "tensorboard")
        callbacks.append(keras.callbacks.TensorBoard(str(monitor.tensorboard / folder.parent.name / folder.name)))
    try:
        model.fit(batches, epochs=settings.epochs, shuffle=False, verbose=0, callbacks=callbacks)
    except RuntimeError as error:
        if "NaN" not in str(error):
            raise
        shutil.rmtree(folder)
        raise ConfigError(
            f"{name}: the loss is NaN or infinite in epoch {batches.epoch + 1} of {settings.epochs}; "
            f"try a training.learning_rate below {settings.learning_rate:g}"
        ) from None
    return _read_history(folder / HISTORY)


def _compile(model: keras.Model, batches: WindowBatches, loss: Any) -> None:
    settings, steps = batches.config.training, len(batches)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 25,
        max(1, (settings.epochs - WARMUP_EPOCHS) * steps),
        warmup_target=settings.learning_rate,
        warmup_steps=WARMUP_EPOCHS * steps,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    metrics = ["accuracy"] if isinstance(batches, LabelledBatches) else []
    model.compile(optimizer, loss, metrics=metrics, jit_compile=False)
    optimizer.build(model.trainable_variables)


def _set_seeds(model: keras.Model, batches: WindowBatches, epoch: int) -> None:
    """Set the batches and the dropout of an epoch by the seed and the epoch's number, as after an interruption."""
    batches.epoch, seed = epoch, batches.config.training.seed
    states = [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]
    for i, state in enumerate(states):
        state.assign(np.array([(seed + i) % 2**32, epoch], state.dtype))


def _validate(model: keras.Model, windows: WindowedTracks, labels: Ints) -> dict[str, float]:
    """The log loss and the accuracy on whole tracks."""
    logits = mean_logits(windows.predict(model.predict_on_batch))
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return {"val_loss": log_loss(logits, labels), "val_accuracy": accuracy}


def _report_progress(monitor: Monitor, name: str, batches: WindowBatches) -> keras.callbacks.Callback:
    """Reports each batch, and each epoch's metrics."""
    steps, total = len(batches), len(batches) * batches.config.training.epochs

    def report_epoch(epoch: int, logs: dict[str, Any]) -> None:
        metrics = {"epoch": epoch + 1, **{metric: float(value) for metric, value in logs.items()}}
        monitor.report(Step(name, (epoch + 1) * steps, total, metrics))

    def report_batch(batch: int, logs: Any) -> None:
        monitor.report(Step(name, batches.epoch * steps + batch + 1, total, {}))

    return keras.callbacks.LambdaCallback(on_epoch_end=report_epoch, on_train_batch_end=report_batch)


def _plot_history(table: Path, target: Path, name: str) -> keras.callbacks.Callback:
    """Plots the epochs so far. A plot that can't be written is a warning."""

    def plot(epoch: int, logs: Any) -> None:
        try:
            plots.save(plots.history(_read_history(table), name), target)
        except OSError as error:
            warnings.warn(f"{target}: can't be written ({error.strerror})", stacklevel=2)

    return keras.callbacks.LambdaCallback(on_epoch_end=plot)


def _claim(folder: Path, config: Config, tracks: LabelledTracks, valid: LabelledTracks | None) -> None:
    """Write what a network is trained on into its folder. Raises DatasetError when the folder has something else."""
    ids = {"train": tracks.ids, "valid": valid.ids if valid else []}
    run = json.dumps({"config": to_dict(config), "genres": tracks.genres, **ids}) + "\n"
    path = folder / RUN
    if path.exists() and path.read_text(encoding="utf-8") != run:
        raise DatasetError(f"{folder}: was trained with other settings or tracks; use these again, or delete it")
    write_text(path, run)


def _load(model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{path}: can't be read ({error}); delete {path.parent} to train anew") from None


def _read_history(path: Path) -> History:
    """The rows of Keras's CSVLogger, epochs numbered from 1; an interruption may have left two rows of one epoch."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
    return [
        {"epoch": epoch + 1, **{name: float(value) for name, value in row.items() if name != "epoch" and value != "NA"}}
        for epoch, row in sorted(rows.items())
    ]
