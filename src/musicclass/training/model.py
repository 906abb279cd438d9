"""The networks: MFCC windows (batch, frames, n_mfcc) -> logits (batch, n_genres). Keras 3, any backend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from musicclass.config import ModelConfig
from musicclass.features import Array

FAR = 3  # deviations; silence and tones lie further out, and would else outweigh all the rest


def build_model(config: ModelConfig, n_mfcc: int, n_genres: int) -> keras.Model:
    """The network that `config` describes, untrained; it takes windows of any number of frames."""
    return ensemble(config, n_mfcc, n_genres, None)


def ensemble(config: ModelConfig, n_mfcc: int, n_genres: int, weights: Sequence[Sequence[Array]] | None) -> keras.Model:
    """One network out of those that `config` describes, by their `get_weights()`, kind by kind.

    Its logits are the mean over kinds, and for each kind over its networks.
    """
    mfccs = keras.Input((None, n_mfcc), name="mfcc")
    networks, means = [], []
    for kind in config.kinds:
        build = {"cnn_lstm": _cnn_lstm, "statistics": _statistics, "student": _student}[kind[0].network]
        alike = [keras.Model(mfccs, layers.Dense(n_genres)(build(mfccs, one))) for one in kind]
        means.append(_mean([network.output for network in alike]))
        networks += alike
    if weights is not None:
        for network, values in zip(networks, weights, strict=True):
            network.set_weights(values)
    return keras.Model(mfccs, _mean(means))


def trunk(model: keras.Model) -> keras.Model:
    """All but the last layer, which answers."""
    return keras.Model(model.inputs, model.layers[-1].input)


def _mean(logits: list[Any]) -> Any:
    return layers.Average()(logits) if len(logits) > 1 else logits[0]


def _cnn_lstm(mfccs: Any, config: ModelConfig) -> Any:
    n_bands, x = int(mfccs.shape[-1]), mfccs
    if config.subtract_mean:
        x -= keras.ops.mean(x, axis=1, keepdims=True)
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


def _statistics(mfccs: Any, config: ModelConfig) -> Any:
    """What a window is like, in deviations from what all are like; `discriminant.solve` sets its weights."""
    x = layers.BatchNormalization(center=False, scale=False, epsilon=1e-6)(describe(mfccs))
    return keras.ops.clip(x, -FAR, FAR)


def describe(mfccs: Any) -> Any:
    """The statistics of windows, of which texture models consist (McDermott and Simoncelli 2011): (batch, n)."""
    return layers.Concatenate()([Statistics()(mfccs), Rhythm()(mfccs)])


class Statistics(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """What the MFCCs of a window (batch, frames, n_mfcc) are like, whatever their order: (batch, n).

    Of the first COEFFICIENTS: mean, log deviation, skewness, log kurtosis, log mean distance from the mean, and log
    deviation of what changes in LAGS frames. Of the first CORRELATED, how far they go together; of the first CROSSED,
    how far they do CROSS_LAGS later.
    """

    COEFFICIENTS, CORRELATED, CROSSED = 40, 20, 12
    LAGS = (1, 2, 4, 8, 16, 32)  # frames: 41 ms to 1.3 s
    CROSS_LAGS = (2, 8, 32)

    def call(self, mfccs: Any) -> Any:
        ops, n = keras.ops, min(self.COEFFICIENTS, mfccs.shape[-1])
        x = mfccs[:, :, :n]
        mean = ops.mean(x, axis=1, keepdims=True)
        deviation = ops.std(x, axis=1, keepdims=True) + 1e-3
        x = (x - mean) / deviation
        squares = x * x
        spread = ops.log(deviation[:, 0])
        found = [mean[:, 0], spread, ops.mean(squares * x, axis=1)]
        found += [ops.log(ops.mean(values, axis=1) + 1e-3) for values in (squares * squares, ops.abs(x))]
        places = np.arange(n)
        rows, columns = np.triu_indices(min(self.CORRELATED, n), 1)
        found.append(_cells(_alike(x, 0), rows, columns))
        crossed = np.indices((min(self.CROSSED, n),) * 2).reshape(2, -1)
        for lag in self.LAGS:
            alike = _alike(x, lag)
            found.append(spread + ops.log(1.001 - _cells(alike, places, places)) / 2)
            if lag in self.CROSS_LAGS:
                found.append(_cells(alike, *crossed))
        return ops.concatenate(found, axis=1)


class Rhythm(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """How a window of MFCCs (batch, frames, n_mfcc) moves, wherever its beats lie: (batch, n).

    Of the rises of BANDS broad bands, by which onsets are found (Dixon 2006): log mean, log deviation and skewness.
    Of their modulation spectra and those of the first COEFFICIENTS, octave by octave: how far the highest point stands
    out of the mean, in log. A beat is a line, where chance is level.
    """

    BANDS, COEFFICIENTS = 16, 20
    GRID = np.arange(3, 121) / 240  # cycles per frame: 0.3 to 12 Hz
    OCTAVES = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2 + 1e-6)  # 0.75, 1.5, 3, 6, 12 Hz

    def call(self, mfccs: Any) -> Any:
        ops, n = keras.ops, min(self.BANDS, mfccs.shape[-1])
        bands = ops.matmul(mfccs[:, :, :n], inverse_dct(n, self.BANDS))
        rises = ops.relu(ops.concatenate([bands[:, 1:], bands[:, -1:]], axis=1) - bands)
        mean = ops.mean(rises, axis=1, keepdims=True)
        deviation = ops.std(rises, axis=1, keepdims=True) + 0.1
        found = [
            ops.log(mean[:, 0] + 0.1),
            ops.log(deviation[:, 0]),
            ops.mean(((rises - mean) / deviation) ** 3, axis=1),
        ]
        power = _modulation(ops.concatenate([rises, mfccs[:, :, : self.COEFFICIENTS]], axis=2), self.GRID)
        for i, j in pairwise(np.searchsorted(self.GRID, self.OCTAVES).tolist()):
            octave = power[:, i:j] + 1e-3
            found.append(ops.log(ops.max(octave, axis=1)) - ops.log(ops.mean(octave, axis=1)))
        return ops.concatenate(found, axis=1)


def _modulation(x: Any, grid: npt.NDArray[np.float64]) -> Any:
    """Power (batch, n_grid, n) of x (batch, frames, n) under a Hann window, at frequencies in cycles per frame."""
    ops = keras.ops
    time = ops.cumsum(ops.ones_like(x[:1, :, 0]), axis=1)  # 1, 2, … however many frames there are
    hann = ops.square(ops.sin(np.pi * time / (ops.max(time) + 1)))
    x = (x - ops.mean(x, axis=1, keepdims=True)) * (hann / ops.sqrt(ops.sum(hann * hann)))[:, :, None]
    phase = ops.matmul((2 * np.pi * grid[:, None]).astype(np.float32), time)
    return ops.square(ops.matmul(ops.cos(phase), x)) + ops.square(ops.matmul(ops.sin(phase), x))


def _alike(x: Any, lag: int) -> Any:
    """Correlations (batch, n, n) of standardized x (batch, frames, n) with itself, `lag` frames later."""
    later = keras.ops.pad(x, ((0, 0), (0, lag), (0, 0)))[:, lag:]  # zeros, so that a window may be shorter than the lag
    products = keras.ops.matmul(keras.ops.transpose(x, (0, 2, 1)), later)
    return products / keras.ops.cast(keras.ops.shape(x)[1], x.dtype)


def _cells(matrices: Any, rows: Any, columns: Any) -> Any:
    """Chosen cells (batch, n_cells) of matrices (batch, n, n)."""
    n = int(matrices.shape[-1])
    flat = keras.ops.reshape(matrices, (-1, n * n))
    return keras.ops.take(flat, np.asarray(rows * n + columns, np.int32), axis=1)


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
