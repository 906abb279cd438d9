"""The networks: MFCC windows (batch, frames, n_mfcc) -> logits (batch, n_genres). Keras 3, any backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers

from musicclass.config import ModelConfig
from musicclass.features import Array


def build_model(config: ModelConfig, n_mfcc: int, n_genres: int) -> keras.Model:
    """The network that `config` describes, untrained; it takes windows of any number of frames."""
    mfccs = keras.Input((None, n_mfcc), name="mfcc")
    if config.members > 1:
        members = [build_model(replace(config, members=1), n_mfcc, n_genres) for _ in range(config.members)]
        return keras.Model(mfccs, layers.Average()([member(mfccs) for member in members]))
    x = _student(mfccs, config) if config.network == "student" else _cnn_lstm(mfccs, config)
    return keras.Model(mfccs, layers.Dense(n_genres)(x))


def ensemble(config: ModelConfig, n_mfcc: int, n_genres: int, weights: Sequence[Sequence[Array]]) -> keras.Model:
    """One network out of several trained ones, by their `get_weights()`; its logits are the mean of theirs."""
    model = build_model(replace(config, members=len(weights)), n_mfcc, n_genres)
    members = [layer for layer in model.layers if isinstance(layer, keras.Model)] or [model]
    for member, values in zip(members, weights, strict=True):
        member.set_weights(values)
    return model


def _cnn_lstm(mfccs: Any, config: ModelConfig) -> Any:
    n_bands, x = int(mfccs.shape[-1]), mfccs
    if config.unmix_bands:
        # Neighbouring MFCCs have nothing to do with each other, neighbouring bands do: convolutions
        # over frequency need bands. The layer starts as the inverse DCT and may learn better.
        kernel = keras.initializers.Constant(inverse_dct(n_bands, config.unmix_bands))
        n_bands = config.unmix_bands
        x = layers.Dense(n_bands, kernel_initializer=kernel, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Reshape((-1, n_bands, 1))(x)
    for i, (filters, time, bands) in enumerate(zip(config.filters, config.time_pool, config.band_pool, strict=True)):
        if i == 0:
            # Wide filters in steps, as nothing else is done at full size: 32 of them would cost more than all the rest.
            x = layers.Conv2D(filters, config.stem, strides=(time, bands), padding="same", use_bias=False)(x)
        else:
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.MaxPooling2D((time, bands), padding="same")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        if config.squeeze:
            x = _squeeze(x, filters)
    # What is left of frequency joins the channels; time stays in order.
    x = layers.Reshape((-1, int(x.shape[2]) * int(x.shape[3])))(x)
    x = layers.Dropout(config.dropout)(x)
    for i in range(config.lstm_layers):
        every_step = i < config.lstm_layers - 1 or config.summary != "last"
        lstm: Any = layers.LSTM(config.lstm_units, return_sequences=every_step)
        x = (layers.Bidirectional(lstm) if config.bidirectional else lstm)(x)
    return layers.Dropout(config.dropout)(_summary(x, config.summary))


def _squeeze(x: Any, filters: int) -> Any:
    """Squeeze and excitation: channels are weighed by the mean of all channels over the window."""
    mean = layers.GlobalAveragePooling2D()(x)
    weights = layers.Dense(filters, activation="sigmoid")(layers.Dense(max(8, filters // 4), activation="relu")(mean))
    return layers.Multiply()([x, layers.Reshape((1, 1, filters))(weights)])


def _summary(steps: Any, how: str) -> Any:
    """One vector of the LSTM's steps (batch, steps, units)."""
    if how == "mean":
        return layers.GlobalAveragePooling1D()(steps)
    if how == "attention":
        weights = layers.Softmax(axis=1)(layers.Dense(1)(layers.Dense(32, activation="tanh")(steps)))
        return layers.Flatten()(layers.Dot(axes=1)([weights, steps]))
    return steps


def _student(mfccs: Any, config: ModelConfig) -> Any:
    """The network of the README this project grew from, with its flaw: the sequence that its LSTM
    reads runs through frequency within time, so that a step is neither."""
    x = layers.Reshape((-1, int(mfccs.shape[-1]), 1))(layers.BatchNormalization(momentum=0.9)(mfccs))
    for filters, time, bands in zip(config.filters, config.time_pool, config.band_pool, strict=True):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D((time, bands), padding="same")(x)
    x = layers.Reshape((-1, config.filters[-1]))(x)
    for i in range(config.lstm_layers):
        x = layers.LSTM(config.lstm_units, return_sequences=i < config.lstm_layers - 1)(x)
    return layers.Dropout(config.dropout)(layers.Dense(64, activation="relu")(x))


def inverse_dct(n_mfcc: int, n_bands: int) -> Array:
    """The matrix (n_mfcc, n_bands) that turns orthonormal DCT-II coefficients back into bands, up to a factor."""
    k, band = np.arange(n_mfcc)[:, None], np.arange(n_bands)
    matrix = np.cos(np.pi * k * (band + 0.5) / n_bands) * np.sqrt(2 / n_bands)
    matrix[0] /= np.sqrt(2)
    inverse: Array = matrix.astype(np.float32)
    return inverse
