"""Logistic regression on vectors of tracks: embeddings of the tagger, or features of a frozen CNN-LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicclass.config import Config
from musicclass.features import Array
from musicclass.training.calibration import artist_folds, fit_temperature, log_loss
from musicclass.training.ood import Floats, Ints
from musicclass.training.tracks import LabelledTracks

GENRE_BALANCE = 0.75  # of the way to equal weights of genres
PENALTIES = (0.003, 0.01, 0.03, 0.1)  # of which cross-validation chooses C where the configuration has 0
ABSENT = -12.0  # logit of a genre that no training track has


@dataclass(frozen=True, eq=False)
class Linear:
    """Vectors (n, d) -> logits (n, n_outputs)."""

    coefficients: Floats  # (d, n_outputs)
    intercepts: Floats  # (n_outputs,)

    def __call__(self, vectors: Array) -> Floats:
        return np.asarray(vectors.astype(np.float64) @ self.coefficients + self.intercepts)


def fit_linear(vectors: Array, tracks: LabelledTracks, config: Config) -> tuple[Linear, float]:
    """The regression on one vector (n_tracks, d) of each track, and its inverse penalty C."""
    labels, n_genres = tracks.labels, len(tracks.genres)
    weights = tracks.weights(config.training.label_weights, GENRE_BALANCE)
    c = config.model.tagger_c or _choose_c(vectors, labels, weights, artist_folds(tracks.tracks), n_genres)
    return fit_logistic(vectors, labels, weights, n_genres, c), c


def _choose_c(vectors: Array, labels: Ints, weights: Floats, folds: Ints, n_genres: int) -> float:
    """The one of PENALTIES with the lowest log loss on held-out tracks; `folds` (n_tracks,) keep artists apart.

    It is that of logits divided by a temperature, as calibration follows: else C makes up for wrong confidences.
    """

    def loss(c: float) -> float:
        logits = np.zeros((len(labels), n_genres))
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            if len(np.unique(labels[rest])) > 1:
                logits[held] = fit_logistic(vectors[rest], labels[rest], weights[rest], n_genres, c)(vectors[held])
        return log_loss(logits / fit_temperature(logits, labels), labels, weights)

    return min(PENALTIES, key=loss)


def fit_logistic(vectors: Array, labels: Ints, weights: Floats, n_outputs: int, c: float) -> Linear:
    """Multinomial logistic regression on standardized `vectors` (n, d), as a function of the original ones."""
    from sklearn.linear_model import LogisticRegression

    mean, std = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64) + 1e-6
    model = LogisticRegression(C=c, max_iter=1000)
    model.fit((vectors - mean) / std, labels, sample_weight=weights)
    slopes, biases = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one row for two classes
        slopes, biases = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-biases, biases]) / 2
    coefficients, intercepts = np.zeros((vectors.shape[1], n_outputs)), np.full(n_outputs, ABSENT)
    coefficients[:, model.classes_] = slopes.T / std[:, None]
    intercepts[model.classes_] = biases - slopes @ (mean / std)
    return Linear(coefficients, intercepts)
