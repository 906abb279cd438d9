"""How good predictions are, by track, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

BINS = 15
RESAMPLES = 2000


def expected_calibration_error(probabilities: Floats, truth: Ints, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy, over bins with equally many tracks (Nguyen & O'Connor 2015)."""
    return float(sum(abs(c - a) * n for c, a, n in reliability(probabilities, truth, bins)) / len(truth))


def reliability(probabilities: Floats, truth: Ints, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each bin, least sure first; bins hold equally many tracks."""
    _validate(probabilities, truth)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(truth)))
    return [(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def bootstrap(score: Callable[[Ints], float], n: int, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of `score(indices)` when the n tracks are drawn anew, with replacement."""
    rng = np.random.default_rng(seed)
    scores = [score(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def evaluate_probabilities(probabilities: Floats, truth: Ints, genres: Sequence[str]) -> dict[str, Any]:
    """All metrics of tracks' probabilities (n_tracks, n_genres) against their genres (n_tracks,), JSON-ready.

    Raises ValueError for no tracks, shapes that don't fit, or probabilities that don't sum to 1.
    """
    _validate(probabilities, truth)
    guess = probabilities.argmax(axis=1)
    labels = range(len(genres))
    right = guess == truth
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        truth, guess, labels=list(labels), zero_division=0
    )
    return {
        "tracks": len(truth),
        "accuracy": float(right.mean()),
        "accuracy_95": bootstrap(lambda rows: float(right[rows].mean()), len(truth)),
        "macro_f1": float(sk.f1_score(truth, guess, average="macro", zero_division=0)),
        "macro_f1_95": bootstrap(lambda rows: _macro_f1(truth[rows], guess[rows], len(genres)), len(truth)),
        "log_loss": float(sk.log_loss(truth, probabilities, labels=list(labels))),
        "calibration_error": expected_calibration_error(probabilities, truth),
        "genres": {
            genre: {"precision": float(p), "recall": float(r), "f1": float(f), "tracks": int(n)}
            for genre, p, r, f, n in zip(genres, precision, recall, f1, support, strict=True)
        },
        "confusion": sk.confusion_matrix(truth, guess, labels=list(labels)).tolist(),
        "reliability": reliability(probabilities, truth),
    }


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
