"""Out-of-distribution detection: how familiar a track is, from 0 to 1.

Softmax is overconfident on out-of-distribution input. So there is a score beside the probability ("familiarity", as
Dietterich & Guyer 2022 call it; the literature's in-distribution score). It combines the relative Mahalanobis distance
of a track's mean logits (Ren et al. 2021) with the Mahalanobis distance of simple MFCC statistics, which don't depend
on the network, and, with the tagger, the Mahalanobis distance of embeddings from the nearest genre (Lee et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from musicclass.features import Array
from musicclass.tagger import unit_length

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

# Tuned on GTZAN: genres held out of training against validation tracks of the others (docs/results.md).
N_MFCC = 8  # lowest coefficients of the statistics; with more, held-out music is rejected, too
INPUT_DISTANCE_WEIGHT = 8  # of the squared feature distance in the combined score
EMBEDDING_WEIGHT = 0.25  # of the embedding's distance in the combined score; tuned on genres excluded from training
OOD_LOGISTIC_SLOPE = 0.3  # from the combined score to familiarity
DISTANCE_EXPONENT = 6  # from the feature distance to familiarity, where the logits can't be used
SHRINKAGE = 0.3  # of the logits' covariance towards its diagonal
HELDOUT_REJECTION_RATE = 0.04  # share of held-out tracks below a familiarity of 0.5
SCALE_QUANTILE = 0.99  # of held-out tracks' feature distances; becomes a distance of 1
MIN_HELDOUT_PER_GENRE = 5  # with fewer held-out tracks of a genre, its logits' covariance is unknown
STD_OFFSET = 0.1  # keeps the logarithm of a deviation finite


def mfcc_statistics(windows: Array) -> Floats:
    """Mean, log deviation and log deviation of the differences of each window's lowest MFCCs.

    (n_windows, n_frames, n_mfcc) -> (n_windows, 3 * N_MFCC)
    """
    low = np.float64(windows[:, :, :N_MFCC])
    deviations = [np.log(values.std(axis=1) + STD_OFFSET) for values in (low, np.diff(low, axis=1))]
    return np.concatenate([low.mean(axis=1), *deviations], axis=1)


@dataclass(frozen=True, eq=False)
class FeatureOodScorer:
    """Mahalanobis distance of a window's MFCC statistics from those of the training tracks."""

    mean: Floats  # (n,)
    precision: Floats  # (n, n), inverse covariance
    scale: float = 1.0  # the squared distance within which 99% of held-out tracks lie

    @classmethod
    def fit(cls, training: list[Array], heldout: list[Array]) -> FeatureOodScorer:
        """From the MFCC windows of the training tracks, and of tracks that the model wasn't trained on."""
        known = np.concatenate([mfcc_statistics(windows) for windows in training])
        ridge = known.var(axis=0) * 1e-3 + 1e-9  # keeps few or equal windows from an infinite precision
        scorer = cls(known.mean(axis=0), np.linalg.inv(np.cov(known.T) + np.diag(ridge)))
        distances = [scorer.distance(windows).mean() for windows in heldout]
        return replace(scorer, scale=max(1e-9, float(np.quantile(distances, SCALE_QUANTILE))))

    def distance(self, windows: Array) -> Floats:
        """Squared distance (n_windows,) of MFCC windows (n_windows, n_frames, n_mfcc), in units of `scale`."""
        offset = mfcc_statistics(windows) - self.mean
        return np.asarray(np.einsum("wi,ij,wj->w", offset, self.precision, offset) / self.scale)


@dataclass(frozen=True, eq=False)
class LogitOodScorer:
    """Relative Mahalanobis distance of a track's mean logits (Ren et al. 2021), from those of held-out tracks."""

    means: Floats  # (n_genres, n_genres), a row for each genre
    within_precision: Floats  # (n_genres, n_genres), inverse covariance about the genres' means
    mean: Floats  # (n_genres,), of all tracks
    total_precision: Floats  # (n_genres, n_genres), inverse covariance about it
    threshold: float = 0.0  # the score that all but HELDOUT_REJECTION_RATE of held-out tracks reach
    window_threshold: float = 0.0  # and of their windows, whose scores vary more

    @classmethod
    def fit(cls, logits: Floats, labels: Ints) -> LogitOodScorer:
        """From mean logits (n_tracks, n_genres) of tracks that the network wasn't trained on; each genre has some."""
        means = np.stack([logits[labels == genre].mean(axis=0) for genre in range(logits.shape[1])])
        mean = logits.mean(axis=0)
        return cls(means, _precision(logits - means[labels], len(means)), mean, _precision(logits - mean, 1))

    def relative_distance(self, logits: Floats) -> Floats:
        """How much nearer logits (n, n_genres) are to one genre than to all of them: (n,)."""
        to_all = logits - self.mean
        nearest = nearest_distance(logits, self.means, self.within_precision)
        return np.asarray(np.einsum("ni,ij,nj->n", to_all, self.total_precision, to_all) - nearest)

    def score(self, logits: Floats, distance: Floats, embedding_distance: Floats | float = 0.0) -> Floats:
        """The relative distance, minus the weighted feature `distance` and the weighted distance of the embedding."""
        relative = self.relative_distance(logits) - INPUT_DISTANCE_WEIGHT * distance**2
        return np.asarray(relative - EMBEDDING_WEIGHT * embedding_distance)

    def familiarity(
        self, logits: Floats, distance: Floats, embedding_distance: Floats | float = 0.0, of_windows: bool = False
    ) -> Floats:
        """From 0 to 1, 0.5 at the threshold."""
        threshold = self.window_threshold if of_windows else self.threshold
        above = self.score(logits, distance, embedding_distance) - threshold
        return np.asarray(expit(OOD_LOGISTIC_SLOPE * above))


@dataclass(frozen=True, eq=False)
class EmbeddingOodScorer:
    """Mahalanobis distance of a track's embedding from the nearest genre of the training tracks (Lee et al. 2018)."""

    means: Floats  # (n_genres, EMBEDDING_SIZE)
    precision: Floats  # (EMBEDDING_SIZE, EMBEDDING_SIZE), inverse covariance about the genres' means

    @classmethod
    def fit(cls, embeddings: Array, labels: Ints, n_genres: int) -> EmbeddingOodScorer | None:
        """From embeddings (n_tracks, EMBEDDING_SIZE) of training tracks; None where a genre has none of them."""
        if len(labels) == 0 or np.bincount(labels, minlength=n_genres).min() < 1:
            return None
        vectors = embeddings.astype(np.float64)
        means = np.stack([vectors[labels == genre].mean(axis=0) for genre in range(n_genres)])
        return cls(means, _precision(vectors - means[labels], n_genres))

    def distance(self, embeddings: Array | Floats) -> Floats:
        """Squared distance (n,) of embeddings (n, EMBEDDING_SIZE), which are divided by their lengths."""
        return nearest_distance(unit_length(embeddings).astype(np.float64), self.means, self.precision)


def fit_logit_scorer(
    logits: Sequence[Floats], distances: Sequence[Floats], embedding_distance: Floats, labels: Ints, folds: Ints
) -> LogitOodScorer | None:
    """A LogitOodScorer whose thresholds come from cross-fitting over `folds` (n_tracks,), or None for too few tracks.

    Each held-out track has logits (n_windows, n_genres) and distances (n_windows,); `embedding_distance` (n_tracks,).
    """
    means = np.stack([by_window.mean(axis=0) for by_window in logits])
    if np.bincount(labels, minlength=means.shape[1]).min() < MIN_HELDOUT_PER_GENRE:
        return None
    distance = np.array([by_window.mean() for by_window in distances])
    scores, window_scores = [], []
    for heldout in (folds == fold for fold in np.unique(folds)):
        if len(np.unique(labels[~heldout])) < means.shape[1]:  # all artists of a genre are in this fold
            continue
        scorer = LogitOodScorer.fit(means[~heldout], labels[~heldout])
        scores.append(scorer.score(means[heldout], distance[heldout], embedding_distance[heldout]))
        for i in np.flatnonzero(heldout).tolist():
            window_scores.append(scorer.score(logits[i], distances[i], embedding_distance[i]))
    if not scores:
        return None
    # "weibull" is unbiased: of a new track, the probability to be below it is the rate, however few tracks there are
    threshold, window_threshold = (
        float(np.quantile(np.concatenate(values), HELDOUT_REJECTION_RATE, method="weibull"))
        for values in (scores, window_scores)
    )
    return replace(LogitOodScorer.fit(means, labels), threshold=threshold, window_threshold=window_threshold)


def distance_to_familiarity(distance: Floats) -> Floats:
    """From 1 over 0.5 at a feature distance of 1 to 0: where too few tracks were held out for a LogitOodScorer."""
    return 1 / (1 + distance**DISTANCE_EXPONENT)


def nearest_distance(values: Floats, means: Floats, precision: Floats) -> Floats:
    """Squared Mahalanobis distance (n,) of values (n, d) from the nearest of `means` (n_genres, d)."""
    offsets = values[:, None] - means
    return np.asarray(np.einsum("ngi,ij,ngj->ng", offsets, precision, offsets, optimize=True).min(axis=1))


def _precision(offsets: Floats, n_means: int) -> Floats:
    """Inverse covariance of offsets (n, n_genres) from `n_means` means, shrunk towards its diagonal."""
    covariance = offsets.T @ offsets / max(1, len(offsets) - n_means)
    shrunk = (1 - SHRINKAGE) * covariance + np.diag(SHRINKAGE * np.diag(covariance) + 1e-6)
    return np.asarray(np.linalg.inv(shrunk), np.float64)
