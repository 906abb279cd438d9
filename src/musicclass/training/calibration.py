"""Calibration: from a network's logits to calibrated probabilities and familiarity, fitted on held-out tracks.

This is the reference of what training/graph.py writes into model.onnx, and what cross-validation uses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from scipy.special import log_softmax, softmax

from musicclass.classifier import TrackScores
from musicclass.config import TrainConfig
from musicclass.datasets import Track
from musicclass.datasets.splits import artist_groups
from musicclass.features import Array
from musicclass.training.ood import (
    EmbeddingOodScorer,
    FeatureOodScorer,
    Floats,
    Ints,
    LogitOodScorer,
    distance_to_familiarity,
    fit_logit_scorer,
)

BIAS_PENALTY = TrainConfig.bias_penalty  # tuned in folds by artist on GTZAN
LOG_RANGE = 3  # of temperatures: e^-3 to e^3
N_INNER_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Turns logits into probabilities and familiarity."""

    temperature: float  # logits are divided by it (Guo et al. 2017)
    biases: Floats  # (n_genres,), added after that (Alexandari et al. 2020)
    feature_ood: FeatureOodScorer
    logit_ood: LogitOodScorer | None  # None: only the feature distance determines familiarity

    embedding_ood: EmbeddingOodScorer | None = None  # None: without the tagger

    @classmethod
    def fit(
        cls,
        feature_ood: FeatureOodScorer,
        distances: list[Floats],
        logits: list[Array],
        labels: Ints,
        folds: Ints,
        weights: Floats | None = None,
        embedding_ood: EmbeddingOodScorer | None = None,
        embedding_distances: Floats | None = None,
        bias_penalty: float = BIAS_PENALTY,
    ) -> Calibrator:
        """From feature distances (n_windows,), logits (n_windows, n_genres) and label of each held-out track.

        `folds` (n_tracks,): tracks of one artist are in one fold, for the threshold of the OOD score. `weights` are
        those of the tracks in the log loss. `embedding_distances` (n_tracks,) are by scorers of their own fold.
        """
        by_window = [x.astype(np.float64) for x in logits]
        means = np.stack([x.mean(axis=0) for x in by_window])
        if embedding_distances is None:
            embedding_distances = np.zeros(len(labels))
        scorer = fit_logit_scorer(by_window, distances, embedding_distances, labels, folds)
        return cls(
            *fit_bias_corrected_temperature(means, labels, weights, bias_penalty), feature_ood, scorer, embedding_ood
        )

    def score(self, logits: Array, distance: Floats, embeddings: Array | None = None) -> TrackScores:
        """The scores of a track by its windows' logits (n_windows, n_genres) and feature distances (n_windows,).

        `embeddings` (n_windows, 200) are needed with an `embedding_ood`. The distance of their mean counts for windows,
        too: those of few patches vary.
        """
        by_window = np.asarray(logits, np.float64)
        mean = by_window.mean(axis=0, keepdims=True)
        embedding_distance = np.zeros(1)
        if self.embedding_ood and embeddings is not None:
            embedding_distance = self.embedding_ood.distance(embeddings.astype(np.float64).mean(axis=0, keepdims=True))
        return TrackScores(
            self._probabilities(mean)[0],
            float(self._familiarity(mean, distance.mean(keepdims=True), embedding_distance)[0]),
            self._probabilities(by_window),
            self._familiarity(by_window, distance, embedding_distance, True).astype(np.float32),
        )

    def _probabilities(self, logits: Floats) -> Array:
        return softmax(logits / self.temperature + self.biases, axis=-1).astype(np.float32)

    def _familiarity(
        self, logits: Floats, distance: Floats, embedding_distance: Floats, of_windows: bool = False
    ) -> Floats:
        if self.logit_ood is None:
            return distance_to_familiarity(distance)
        return self.logit_ood.familiarity(logits, distance, embedding_distance, of_windows)


def artist_folds(tracks: Sequence[Track], n_folds: int = N_INNER_FOLDS) -> Ints:
    """A fold (n_tracks,) for each track, stratified by genre; tracks of one artist, and replicas, share a fold.

    A track of an unknown artist is its own group. There are fewer folds where there are too few groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    group_of, _ = artist_groups(tracks)
    groups, genres = [group_of[track.id] for track in tracks], [track.genre for track in tracks]
    n_folds = min(n_folds, len(set(groups)), max(map(genres.count, set(genres))))
    folds = np.zeros(len(tracks), np.intp)
    if n_folds > 1:
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0)
        with warnings.catch_warnings(action="ignore"):  # of genres with fewer tracks than folds
            for fold, (_, rows) in enumerate(splitter.split(groups, genres, groups)):
                folds[rows] = fold
    return folds


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature with the lowest log loss of logits (n_tracks, n_genres) (Guo et al. 2017)."""
    fitted = scipy.optimize.minimize_scalar(
        lambda x: log_loss(logits / np.exp(x), labels), bounds=(-LOG_RANGE, LOG_RANGE), method="bounded"
    )
    return float(np.exp(fitted.x))


def fit_bias_corrected_temperature(
    logits: Floats, labels: Ints, weights: Floats | None = None, bias_penalty: float = BIAS_PENALTY
) -> tuple[float, Floats]:
    """Temperature and biases (n_genres,) with the lowest log loss of tracks' mean logits (n_tracks, n_genres).

    Bias-corrected temperature scaling (Alexandari et al. 2020); large biases are penalized, so few tracks move none.
    """

    def loss(x: Floats) -> float:
        return _penalized_loss(logits / np.exp(x[0]), x[1:], labels, weights, bias_penalty)

    n = 1 + logits.shape[1]
    x = scipy.optimize.minimize(loss, np.zeros(n), method="L-BFGS-B", bounds=[(-LOG_RANGE, LOG_RANGE)] * n).x
    return float(np.exp(x[0])), x[1:]


def fit_branch_weights(
    branches: Sequence[Floats],
    labels: Ints,
    sample_weights: Floats | None = None,
    bias_penalty: float = BIAS_PENALTY,
) -> Floats:
    """Weights (n_branches,), at least 0 and with the sum 1, of the branches' mean logits (n_tracks, n_genres).

    Together with a temperature and biases, they have the lowest log loss.
    """
    n = len(branches)
    if n == 1:
        return np.ones(1)
    stacked = np.stack(branches)

    def loss(x: Floats) -> float:
        return _penalized_loss(np.tensordot(x[:n], stacked, axes=1), x[n:], labels, sample_weights, bias_penalty)

    start = np.concatenate([np.full(n, 1 / n), np.zeros(stacked.shape[2])])
    bounds = [(0.0, float(np.exp(LOG_RANGE)))] * n + [(-LOG_RANGE, LOG_RANGE)] * stacked.shape[2]
    weights = scipy.optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds).x[:n]
    return weights / weights.sum() if weights.sum() > 1e-6 else np.full(n, 1 / n)


def _penalized_loss(logits: Floats, biases: Floats, labels: Ints, weights: Floats | None, penalty: float) -> float:
    return log_loss(logits + biases, labels, weights) + penalty * float((biases**2).sum()) / len(labels)


def log_loss(logits: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """Mean negative log-likelihood of the labels (n_tracks,) by logits (n_tracks, n_genres); `weights` (n_tracks,)."""
    return -float(np.average(log_softmax(logits, axis=1)[np.arange(len(labels)), labels], weights=weights))
