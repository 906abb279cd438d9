"""The networks of a model, by branch: those of Keras are trained in trainer.py, "frozen" (frozen.py) needs no Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from musicclass.config import Config
from musicclass.training.frozen import fit_frozen
from musicclass.training.tracks import LabelledTracks

History = list[dict[str, float]]  # a row for each epoch


class Step(NamedTuple):
    """How far the training of one network is."""

    network: str
    done: int  # batches
    total: int
    metrics: dict[str, float]  # of the epoch that has just ended, with its number; else empty


class Monitor(NamedTuple):
    """Who is informed of the progress of training."""

    report: Callable[[Step], None] = lambda step: None
    tensorboard: Path | None = None  # folder for TensorBoard's logs
    prefix: str = ""  # of networks' names, such as "fold 1 of 5: "
    history: Path | None = None  # a plot of the network in training, replaced after each epoch


class Trained(NamedTuple):
    """A trained network."""

    network: Any  # with predict_on_batch(windows) -> logits: a keras.Model, or a FrozenNetwork
    config: Config
    history: History  # empty for LDA and "frozen"


def train_networks(
    config: Config, tracks: LabelledTracks, valid: LabelledTracks | None, work: Path, monitor: Monitor
) -> dict[str, list[Trained]]:
    """Branch -> its trained networks; those of Keras keep their state in folders below `work`.

    Validation tracks only show the progress; the weights are those of the last epoch. Raises DatasetError when a folder
    was trained with other settings or tracks, ConfigError when the loss becomes NaN, ModelError without backbone.onnx.
    """
    if config.model.uses_keras:
        from musicclass.training.trainer import train_keras_networks  # takes seconds, and needs TensorFlow

        return train_keras_networks(config, tracks, valid, work, monitor)
    name = f"{monitor.prefix}frozen"
    monitor.report(Step(name, 0, 1, {}))
    config = replace(config, model=replace(config.model, architecture="frozen"))
    network = fit_frozen(tracks, config)
    monitor.report(Step(name, 1, 1, {}))
    return {"frozen": [Trained(network, config, [])]}
