"""The networks of a model: one or two branches (CNN-LSTM, LDA), each of which has one or more networks.

Contrastive pretraining of their backbone pulls windows of one track together, and pushes those of different tracks
apart: SimCLR (Chen et al. 2020) with the supervised contrastive loss (Khosla et al. 2020), where a track is a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import layers

from musicclass.config import Config
from musicclass.training.cnn_lstm import build_baseline, build_cnn_lstm
from musicclass.training.lda import build_lda

PRETRAINING_BATCH = 64  # tracks; more of them in a batch are more negatives
TEMPERATURE = 0.2  # of the similarities in the contrastive loss
BUILDERS = {"cnn_lstm": build_cnn_lstm, "lda": build_lda, "baseline": build_baseline}


def network_configs(config: Config) -> dict[str, list[Config]]:
    """Branch -> the configuration, with its seed, of each of its networks.

    Every second CNN-LSTM has the other `cepstral_mean_norm`, as these make different errors. LDA has one solution.
    """
    branches = {}
    for branch in config.model.branches:
        if branch == "tagger":  # not a network: tagger_head.py
            continue
        model, training = replace(config.model, architecture=branch, ensemble_size=1), config.training
        if branch == "lda":
            training = replace(training, epochs=1, pretrain_epochs=0)
        branches[branch] = [
            replace(
                config,
                model=replace(model, cepstral_mean_norm=model.cepstral_mean_norm != bool(i % 2)),
                training=replace(training, seed=training.seed + i),
            )
            for i in range(1 if branch == "lda" else config.model.ensemble_size)
        ]
    return branches


def build_network(config: Config, n_genres: int) -> keras.Model:
    """The untrained network of one of `network_configs`."""
    name = f"{config.model.architecture}_{config.training.seed}"
    return BUILDERS[config.model.architecture](config.features.n_mfcc, n_genres, config.model, name)


def backbone(network: keras.Model) -> keras.Model:
    """The network without its last layer, "logits"."""
    return keras.Model(network.inputs, network.get_layer("logits").input)


def build_backbone(networks: Sequence[keras.Model]) -> keras.Model:
    """One network from the CNN-LSTMs of a model: MFCC windows -> their pooled vectors, concatenated (n_windows, d)."""
    mfcc = keras.Input((None, networks[0].input_shape[-1]), name="mfcc")
    pooled = [backbone(network)(mfcc) for network in networks]
    return keras.Model(mfcc, layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0], name="backbone")


def build_ensemble(networks: Mapping[str, Sequence[keras.Model]], weights: Mapping[str, float]) -> keras.Model:
    """One network from those of each branch: logits are averaged in each branch, then summed with its weight."""
    n_mfcc = next(iter(networks.values()))[0].input_shape[-1]
    mfcc = keras.Input((None, n_mfcc), name="mfcc")
    branches = []
    for branch, members in networks.items():
        logits = [network(mfcc) for network in members]
        mean: Any = layers.Average(name=f"{branch}_mean")(logits) if len(logits) > 1 else logits[0]
        branches.append(layers.Rescaling(weights[branch], name=f"{branch}_weight")(mean))
    return keras.Model(mfcc, layers.Add(name="sum")(branches) if len(branches) > 1 else branches[0], name="ensemble")


def pretraining_config(config: Config) -> Config:
    """The configuration for pretraining the backbone of a network with `config`.

    It is always pretrained without cepstral mean normalization: on GTZAN that gave better networks, also for those with
    it (docs/results.md).
    """
    training = replace(config.training, epochs=config.training.pretrain_epochs, batch_size=PRETRAINING_BATCH)
    return replace(config, training=training, model=replace(config.model, cepstral_mean_norm=False))


def build_pretraining(config: Config) -> tuple[keras.Model, keras.Model]:
    """A network with a projection head, (batch, n_frames, n_mfcc) -> (batch, 64), and its backbone."""
    trunk = backbone(build_network(config, n_genres=1))
    hidden = keras.layers.Dense(128, activation="relu", name="projection_hidden")(trunk.output)
    projection = keras.layers.Dense(64, name="projection")(hidden)
    return keras.Model(trunk.inputs, projection, name="pretraining"), trunk


def supervised_contrastive_loss(tracks: Any, vectors: Any) -> Any:
    """Loss (batch,) of projections `vectors` (batch, n), whose positives are the others of the same track."""
    ops = keras.ops
    vectors = vectors * ops.rsqrt(ops.sum(vectors * vectors, axis=1, keepdims=True) + 1e-12)  # some may be all zeros
    identity = ops.eye(ops.shape(vectors)[0], dtype=vectors.dtype)
    similarity = ops.matmul(vectors, ops.transpose(vectors)) / TEMPERATURE
    log_probabilities = ops.log_softmax(similarity - 1e9 * identity)
    tracks = ops.reshape(tracks, (-1, 1))
    positives = ops.cast(ops.equal(tracks, ops.transpose(tracks)), vectors.dtype) - identity
    return -ops.sum(positives * log_probabilities, axis=1) / ops.sum(positives, axis=1)
