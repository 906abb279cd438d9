"""The network on the statistics of windows: solved at once, by a linear discriminant analysis, not trained."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from musicclass.confidence import TURNS, Floats, Ints, fit_temperature, turns
from musicclass.training.data import TrackWindows
from musicclass.training.model import describe, trunk

SURER = 1.75  # times its logits, as the folds would have it: it counts for more than the networks beside it


def solve(model: keras.Model, windows: TrackWindows, shifted: TrackWindows, genres: Ints, shrinkage: float) -> None:
    """Set the weights of `model`, a network on statistics, by the `windows` and `genres` (n_tracks,) of tracks.

    The same tracks, `shifted` in pitch and tempo, count as much: else it hangs on keys. The analysis takes each
    statistic of each window for news, and is far too sure. So its logits are divided by the temperature that fits those
    of tracks it was made without, a fifth in each turn.
    """
    mfccs = keras.Input(model.input_shape[1:])
    found = np.concatenate(windows.logits(keras.Model(mfccs, describe(mfccs)).predict_on_batch))
    model.set_weights([found.mean(axis=0), found.var(axis=0), *model.get_weights()[2:]])
    scaled = trunk(model).predict_on_batch
    plain = windows.logits(scaled)
    both = [*plain, *shifted.logits(scaled)]
    lengths = np.array([len(vectors) for vectors in both])
    of_track = np.repeat(np.tile(np.arange(len(genres)), 2), lengths)
    vectors, shares, answers = np.concatenate(both), np.repeat(1 / lengths, lengths), genres[of_track]
    n_genres = model.output_shape[-1]
    turn = turns(genres)
    rests = [(turn != k)[of_track] for k in range(TURNS)]
    without = [discriminant(vectors[rest], shares[rest], answers[rest], n_genres, shrinkage) for rest in rests]
    logits = [own @ without[k][0] + without[k][1] for own, k in zip(plain, turn.tolist(), strict=True)]
    temperature = fit_temperature(logits, genres) / SURER
    weights, biases = discriminant(vectors, shares, answers, n_genres, shrinkage)
    model.set_weights([*model.get_weights()[:2], weights / temperature, biases / temperature])


def discriminant(
    vectors: npt.NDArray[np.floating], shares: Floats, genres: Ints, n_genres: int, shrinkage: float
) -> tuple[Floats, Floats]:
    """Weights (n, n_genres) and biases (n_genres,) that tell the genres (n_windows,) of vectors (n_windows, n) apart.

    Fisher's linear discriminant, each genre as likely and each vector worth its share. There are more directions than
    tracks to learn of, so the covariance is drawn by `shrinkage` towards one that is the same in all (Friedman 1989).
    A genre without vectors lies where all vectors are zero.
    """
    x = np.float64(vectors)
    chosen = np.eye(n_genres)[genres] * shares[:, None]
    means = chosen.T @ x / np.maximum(chosen.sum(axis=0), 1e-9)[:, None]
    within = x - means[genres]
    covariance = within.T @ (within * shares[:, None]) / max(shares.sum(), 1e-9)
    level = shrinkage * np.trace(covariance) / len(covariance) + 1e-6
    weights = np.linalg.solve((1 - shrinkage) * covariance + level * np.eye(len(covariance)), means.T)
    return weights, -(means.T * weights).sum(axis=0) / 2
