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
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of which cross-validation chooses C where the configuration has 0
SMALLEST_VARIANCE = 1e-12
ABSENT = -12.0  # logit of a genre that no training track has


@dataclass(frozen=True, eq=False)
class Linear:
    """Vectors (n, d) -> logits (n, n_outputs)."""

    coefficients: Floats  # (d, n_outputs)
    intercepts: Floats  # (n_outputs,)

    def __call__(self, vectors: Array) -> Floats:
        return np.asarray(vectors.astype(np.float64) @ self.coefficients + self.intercepts)


def fit_linear(
    vectors: Array, tracks: LabelledTracks, config: Config, within: Floats | None = None
) -> tuple[Linear, float]:
    """The regression on one vector (n_tracks, d) of each track, and its inverse penalty C.

    `within` (d, d) is the covariance of vectors of parts of a track: directions in which these vary weigh less.
    """
    labels, n_genres = tracks.labels, len(tracks.genres)
    weights = tracks.weights(config.training.label_weights, GENRE_BALANCE)
    folds = artist_folds(tracks.tracks)
    c = config.model.tagger_c or _choose_c(vectors, labels, weights, folds, n_genres, within)
    return fit_logistic(vectors, labels, weights, n_genres, c, within), c


def _choose_c(
    vectors: Array, labels: Ints, weights: Floats, folds: Ints, n_genres: int, within: Floats | None
) -> float:
    """The one of PENALTIES with the lowest log loss on held-out tracks; `folds` (n_tracks,) keep artists apart.

    It is that of logits divided by a temperature, as calibration follows: else C makes up for wrong confidences.
    """

    def loss(c: float) -> float:
        logits = np.zeros((len(labels), n_genres))
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            if len(np.unique(labels[rest])) > 1:
                linear = fit_logistic(vectors[rest], labels[rest], weights[rest], n_genres, c, within)
                logits[held] = linear(vectors[held])
        return log_loss(logits / fit_temperature(logits, labels), labels, weights)

    return min(PENALTIES, key=loss)


def fit_logistic(
    vectors: Array, labels: Ints, weights: Floats, n_outputs: int, c: float, within: Floats | None = None
) -> Linear:
    """Multinomial logistic regression on whitened `vectors` (n, d), as a function of the original ones.

    They are divided by the matrix square root of their variances plus `within` (d, d), as in within-class covariance
    normalization (Hatch et al. 2006), where a class is a track.
    """
    from sklearn.linear_model import LogisticRegression

    mean = vectors.mean(axis=0, dtype=np.float64)
    whitening = _inverse_root(np.diag(vectors.var(axis=0, dtype=np.float64)) + (0 if within is None else within))
    model = LogisticRegression(C=c, max_iter=1000)
    model.fit((vectors - mean) @ whitening, labels, sample_weight=weights)
    slopes, biases = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one row for two classes
        slopes, biases = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-biases, biases]) / 2
    coefficients, intercepts = np.zeros((vectors.shape[1], n_outputs)), np.full(n_outputs, ABSENT)
    coefficients[:, model.classes_] = whitening @ slopes.T
    intercepts[model.classes_] = biases - slopes @ (mean @ whitening)
    return Linear(coefficients, intercepts)


def _inverse_root(covariance: Floats) -> Floats:
    """The inverse square root of a covariance matrix (d, d)."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(np.maximum(values, SMALLEST_VARIANCE)) @ vectors.T)
