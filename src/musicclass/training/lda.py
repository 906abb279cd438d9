"""Linear discriminant analysis (LDA) of texture and rhythm statistics of MFCC windows, as a Keras network.

Its weights have a closed-form solution: `fit_lda`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from musicclass.config import ModelConfig
from musicclass.features import Array, dct_matrix
from musicclass.training.calibration import fit_temperature
from musicclass.training.ood import Floats, Ints
from musicclass.training.tracks import WindowedTracks

CLIP_SIGMA = 3  # of standardized statistics; silence and pure tones are further out, and would outweigh the rest


def build_lda(n_mfcc: int, n_genres: int, config: ModelConfig, name: str = "lda") -> keras.Model:
    """MFCC windows (batch, n_frames, n_mfcc) -> logits (batch, n_genres); `fit_lda` sets its weights."""
    mfcc = keras.Input((None, n_mfcc), name="mfcc")
    statistics = [TextureStatistics(name="texture")(mfcc), RhythmStatistics(name="rhythm")(mfcc)]
    x = layers.Concatenate(name="statistics")(statistics)  # (batch, 1290) for 64 MFCCs
    x = layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, name="standardize")(x)
    x = keras.ops.clip(x, -CLIP_SIGMA, CLIP_SIGMA)
    return keras.Model(mfcc, layers.Dense(n_genres, name="logits")(x), name=name)


def fit_lda(
    model: keras.Model, windows: WindowedTracks, shifted: WindowedTracks, labels: Ints, folds: Ints, shrinkage: float
) -> None:
    """Set the weights of `model` from tracks' `windows`, and from the same tracks `shifted` in pitch and tempo.

    The shifted windows make it less dependent on key and tempo. LDA takes correlated windows for independent ones, so
    it is overconfident: its logits are divided by a temperature, fitted on tracks that were held out in turn by `folds`
    (n_tracks,), which keep artists apart.
    """
    n_genres = model.output_shape[-1]
    inputs, standardize = model.inputs[0], model.get_layer("standardize")
    values = np.concatenate(windows.predict(_eager(keras.Model(inputs, standardize.input))))
    standardize.moving_mean.assign(values.mean(axis=0))
    standardize.moving_variance.assign(values.var(axis=0))
    standardized = _eager(keras.Model(inputs, model.get_layer("logits").input))
    by_track = windows.predict(standardized)
    vectors = [*by_track, *shifted.predict(standardized)]
    lengths = np.array([len(rows) for rows in vectors])
    track = np.repeat(np.tile(np.arange(len(labels)), 2), lengths)  # (n_vectors,)
    x, weights, y = np.concatenate(vectors), np.repeat(1 / lengths, lengths), labels[track]
    logits = np.zeros((len(labels), n_genres))
    for fold in np.unique(folds):
        rest = (folds != fold)[track]
        coefficients, intercepts = weighted_lda(x[rest], weights[rest], y[rest], n_genres, shrinkage)
        for i in np.flatnonzero(folds == fold):
            logits[i] = by_track[i].mean(axis=0) @ coefficients + intercepts
    temperature = fit_temperature(logits, labels)
    coefficients, intercepts = weighted_lda(x, weights, y, n_genres, shrinkage)
    model.get_layer("logits").set_weights([coefficients / temperature, intercepts / temperature])


def _eager(model: keras.Model) -> Callable[[Array], Array]:
    """The model as a function; without compilation, which takes longer than a few calls."""
    return lambda windows: keras.ops.convert_to_numpy(model(windows, training=False))


def weighted_lda(
    x: npt.NDArray[np.floating], weights: Floats, labels: Ints, n_genres: int, shrinkage: float
) -> tuple[Floats, Floats]:
    """Coefficients (n_features, n_genres) and intercepts (n_genres,) of an LDA with equal priors.

    `weights` (n_samples,) are those of the samples `x` (n_samples, n_features); scikit-learn's LDA has no such weights.
    The covariance is shrunk towards a multiple of the identity (Friedman 1989), as there are more features than tracks.
    A genre without samples gets a mean of zeros.
    """
    x = x.astype(np.float64)
    memberships = np.eye(n_genres)[labels] * weights[:, None]
    means = memberships.T @ x / np.maximum(memberships.sum(axis=0), 1e-9)[:, None]
    offsets = x - means[labels]
    covariance = offsets.T @ (offsets * weights[:, None]) / max(weights.sum(), 1e-9)
    ridge = shrinkage * np.trace(covariance) / len(covariance) + 1e-6
    coefficients = np.linalg.solve((1 - shrinkage) * covariance + ridge * np.eye(len(covariance)), means.T)
    return coefficients, -(means.T * coefficients).sum(axis=0) / 2


@keras.saving.register_keras_serializable("musicclass")
class TextureStatistics(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Statistics of a window's MFCCs that texture models use (McDermott & Simoncelli 2011), whatever their order.

    (batch, n_frames, n_mfcc) -> (batch, n). For the first COEFFICIENTS: mean, log standard deviation, skewness, log
    kurtosis, log mean absolute deviation, and log standard deviation of the difference over each of LAGS. Correlations
    between the first CORRELATED; between the first CROSSED, also those at CROSS_LAGS.
    """

    COEFFICIENTS, CORRELATED, CROSSED = 40, 20, 12
    LAGS = (1, 2, 4, 8, 16, 32)  # frames: 41 ms to 1.3 s
    CROSS_LAGS = (2, 8, 32)

    def call(self, mfcc: Any) -> Any:
        ops, n = keras.ops, min(self.COEFFICIENTS, mfcc.shape[-1])
        x = mfcc[:, :, :n]
        mean = ops.mean(x, axis=1, keepdims=True)
        std = ops.std(x, axis=1, keepdims=True) + 1e-3
        x = (x - mean) / std
        log_std, squares = ops.log(std[:, 0]), x * x
        parts = [mean[:, 0], log_std, ops.mean(squares * x, axis=1)]
        parts += [ops.log(ops.mean(values, axis=1) + 1e-3) for values in (squares * squares, ops.abs(x))]
        rows, columns = np.triu_indices(min(self.CORRELATED, n), 1)
        parts.append(_cells(_lagged_correlation(x, 0), rows, columns))
        diagonal, crossed = np.arange(n), np.indices((min(self.CROSSED, n),) * 2).reshape(2, -1)
        for lag in self.LAGS:
            correlation = _lagged_correlation(x, lag)
            parts.append(log_std + ops.log(1.001 - _cells(correlation, diagonal, diagonal)) / 2)
            if lag in self.CROSS_LAGS:
                parts.append(_cells(correlation, *crossed))
        return ops.concatenate(parts, axis=1)


@keras.saving.register_keras_serializable("musicclass")
class RhythmStatistics(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Statistics of the temporal modulation in a window of MFCCs, independent of the phase of its beat.

    (batch, n_frames, n_mfcc) -> (batch, n). For the onset strength in BANDS bands (spectral flux, Dixon 2006): log
    mean, log standard deviation, skewness. For the modulation spectra of these and of the first COEFFICIENTS: log
    peak-to-mean ratio in each octave, which is high for a regular pulse.
    """

    BANDS, COEFFICIENTS = 16, 20
    FREQUENCIES = np.arange(3, 121) / 240  # cycles per frame: 0.3 to 12 Hz
    OCTAVES = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2 + 1e-6)  # up to 0.75, 1.5, 3, 6, 12 Hz

    def call(self, mfcc: Any) -> Any:
        ops, n = keras.ops, min(self.BANDS, mfcc.shape[-1])
        bands = ops.matmul(mfcc[:, :, :n], dct_matrix(self.BANDS, n).T)
        onsets = ops.relu(ops.concatenate([bands[:, 1:], bands[:, -1:]], axis=1) - bands)
        mean = ops.mean(onsets, axis=1, keepdims=True)
        std = ops.std(onsets, axis=1, keepdims=True) + 0.1
        skewness = ops.mean(((onsets - mean) / std) ** 3, axis=1)
        parts = [ops.log(mean[:, 0] + 0.1), ops.log(std[:, 0]), skewness]
        moving = ops.concatenate([onsets, mfcc[:, :, : self.COEFFICIENTS]], axis=2)
        power = _modulation_spectrum(moving, self.FREQUENCIES)
        for low, high in pairwise(np.searchsorted(self.FREQUENCIES, self.OCTAVES).tolist()):
            octave = power[:, low:high] + 1e-3
            parts.append(ops.log(ops.max(octave, axis=1)) - ops.log(ops.mean(octave, axis=1)))
        return ops.concatenate(parts, axis=1)


def _modulation_spectrum(x: Any, frequencies: npt.NDArray[np.float64]) -> Any:
    """Power (batch, n_frequencies, n) of x (batch, n_frames, n), Hann window; frequencies in cycles per frame."""
    ops = keras.ops
    time = ops.cumsum(ops.ones_like(x[:1, :, 0]), axis=1)  # 1, 2, … up to n_frames, which the graph doesn't know
    hann = ops.square(ops.sin(np.pi * time / (ops.max(time) + 1)))
    x = (x - ops.mean(x, axis=1, keepdims=True)) * (hann / ops.sqrt(ops.sum(hann * hann)))[:, :, None]
    phase = ops.matmul((2 * np.pi * frequencies[:, None]).astype(np.float32), time)
    return ops.square(ops.matmul(ops.cos(phase), x)) + ops.square(ops.matmul(ops.sin(phase), x))


def _lagged_correlation(x: Any, lag: int) -> Any:
    """Correlations (batch, n, n) of standardized x (batch, n_frames, n) with itself, `lag` frames later."""
    later = keras.ops.pad(x, ((0, 0), (0, lag), (0, 0)))[:, lag:]  # zeros: a window may be shorter than the lag
    products = keras.ops.matmul(keras.ops.transpose(x, (0, 2, 1)), later)
    return products / keras.ops.cast(keras.ops.shape(x)[1], x.dtype)


def _cells(matrices: Any, rows: Any, columns: Any) -> Any:
    """Chosen cells (batch, n_cells) of matrices (batch, n, n)."""
    n = int(matrices.shape[-1])
    flat = keras.ops.reshape(matrices, (-1, n * n))
    return keras.ops.take(flat, np.asarray(rows * n + columns, np.int32), axis=1)
