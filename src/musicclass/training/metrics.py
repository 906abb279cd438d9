"""How good predictions are, by track, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from musicclass.confidence import Floats, Ints

Bools = npt.NDArray[np.bool_]

BINS = 15
SUREST = 0.6
RESAMPLES = 2000


def expected_calibration_error(confidence: Floats, right: Bools, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy, over bins with equally many tracks (Nguyen & O'Connor 2015)."""
    return float(sum(abs(c - a) * n for c, a, n in reliability(confidence, right, bins)) / len(right))


def reliability(confidence: Floats, right: Bools, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each bin, least sure first; bins hold equally many tracks."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(right)))
    return [(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def calibration_noise(confidence: Floats, bins: int = BINS, seed: int = 0) -> float:
    """The calibration error to expect of a perfectly calibrated model with these confidences: few tracks are noisy."""
    rng = np.random.default_rng(seed)
    draws = (rng.random(len(confidence)) < confidence for _ in range(200))
    return float(np.mean([expected_calibration_error(confidence, right, bins) for right in draws]))


def accuracy_of_surest(confidence: Floats, right: Bools, share: float = SUREST) -> float:
    """Accuracy on the `share` of tracks with the highest confidence."""
    return float(right[np.argsort(-confidence, kind="stable")[: max(1, round(share * len(right)))]].mean())


def wilson(k: int, n: int) -> tuple[float, float]:
    """95% interval of a share k of n (Wilson 1927): good for few tracks, too. Of none: (0, 1)."""
    if not n:
        return 0.0, 1.0
    z2 = 1.959964**2
    centre, half = k + z2 / 2, (z2 * (k * (n - k) / n + z2 / 4)) ** 0.5
    return max(0.0, (centre - half) / (n + z2)), min(1.0, (centre + half) / (n + z2))


def bootstrap(score: Callable[[Ints], Any], n: int, seed: int = 0) -> tuple[Any, Any]:
    """95% percentile interval of `score(indices)` when the n tracks are drawn anew, with replacement."""
    low, high = np.percentile(_resampled(score, n, seed), [2.5, 97.5], axis=0).tolist()
    return low, high


def _resampled(score: Callable[[Ints], Any], n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return np.array([score(rng.integers(0, n, n)) for _ in range(RESAMPLES)])


def _calibration_interval(sure: Floats, right: Bools) -> tuple[float, float]:
    """Of the expected calibration error: the bootstrap's interval, moved by its bias, as tracks that are drawn twice
    let any model seem worse calibrated (Efron and Tibshirani 1993, chapter 10)."""
    found = _resampled(lambda rows: expected_calibration_error(sure[rows], right[rows]), len(sure))
    low, high = np.percentile(found, [2.5, 97.5]) - (found.mean() - expected_calibration_error(sure, right))
    return max(0.0, float(low)), float(high)


def evaluate_probabilities(
    probabilities: Floats, truth: Ints, genres: Sequence[str], confidence: Floats | None = None
) -> dict[str, Any]:
    """All metrics of tracks' probabilities (n_tracks, n_genres) against their genres (n_tracks,), JSON-ready.

    `confidence` (n_tracks,) in the most probable genre is that genre's probability, unless it is given.
    Raises ValueError for no tracks, shapes that don't fit, or probabilities that don't sum to 1.
    """
    _validate(probabilities, truth)
    sure = probabilities.max(axis=1) if confidence is None else confidence
    guess, n = probabilities.argmax(axis=1), len(truth)
    labels = list(range(len(genres)))
    right = guess == truth
    f1_95 = bootstrap(lambda rows: _genre_f1(truth[rows], guess[rows], len(genres)), n)
    macro_f1_95 = bootstrap(lambda rows: _macro_f1(truth[rows], guess[rows], len(genres)), n)
    return {
        "tracks": n,
        "accuracy": float(right.mean()),
        "accuracy_95": bootstrap(lambda rows: right[rows].mean(), n),
        "macro_f1": float(sk.f1_score(truth, guess, average="macro", zero_division=0)),
        "macro_f1_95": macro_f1_95,
        "log_loss": float(sk.log_loss(truth, probabilities, labels=labels)),
        "calibration_error": expected_calibration_error(sure, right),
        "calibration_error_95": _calibration_interval(sure, right),
        "calibration_noise": calibration_noise(sure),
        "surest_60": accuracy_of_surest(sure, right),
        "surest_60_95": bootstrap(lambda rows: accuracy_of_surest(sure[rows], right[rows]), n),
        "genres": _by_genre(truth, guess, genres, np.transpose(f1_95)),
        "confusion": sk.confusion_matrix(truth, guess, labels=labels).tolist(),
        "reliability": reliability(sure, right),
        "coverage": _coverage(sure, right),
    }


def _by_genre(truth: Ints, guess: Ints, genres: Sequence[str], f1_95: Any) -> dict[str, dict[str, Any]]:
    counts = sk.confusion_matrix(truth, guess, labels=list(range(len(genres))))
    found = {}
    for i, genre in enumerate(genres):
        hits, tracks, told = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        found[genre] = {
            "precision": hits / max(1, told),
            "precision_95": wilson(hits, told),
            "recall": hits / max(1, tracks),
            "recall_95": wilson(hits, tracks),
            "f1": 2 * hits / max(1, told + tracks),
            "f1_95": tuple(map(float, f1_95[i])),
            "tracks": tracks,
        }
    return found


def _coverage(sure: Floats, right: Bools, points: int = 20) -> list[tuple[float, float]]:
    """Share of tracks that are kept, the surest first, and the accuracy on these."""
    return [(i / points, accuracy_of_surest(sure, right, i / points)) for i in range(1, points + 1)]


def _genre_f1(truth: Ints, guess: Ints, n_genres: int) -> Floats:
    both = np.bincount(truth[truth == guess], minlength=n_genres)
    either = np.bincount(truth, minlength=n_genres) + np.bincount(guess, minlength=n_genres)
    f1: Floats = 2 * both / np.maximum(1, either)
    return f1


def _macro_f1(truth: Ints, guess: Ints, n_genres: int) -> float:
    """As scikit-learn's f1_score(average="macro"), but fast enough for a bootstrap."""
    both = np.bincount(truth[truth == guess], minlength=n_genres)
    either = np.bincount(truth, minlength=n_genres) + np.bincount(guess, minlength=n_genres)
    seen = either > 0
    return float((2 * both[seen] / either[seen]).mean())


def _validate(probabilities: Floats, truth: Ints) -> None:
    if not len(truth):
        raise ValueError("no tracks to evaluate")
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise ValueError(f"probabilities {probabilities.shape} don't fit the genres of {len(truth)} tracks")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("probabilities must sum to 1 for each track")
