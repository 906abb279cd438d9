"""How good predictions are, by track, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
from sklearn import metrics as sk

from musicclass.confidence import Floats, Ints

Bools = npt.NDArray[np.bool_]

BINS = 15
SUREST = 0.6
RESAMPLES = 2000
Z = 1.959964  # of a normal distribution, within which 95% lie
FEW = 3  # groups


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
    return float(right[_surest(confidence, share)].mean())


def _surest(confidence: Floats, share: float) -> Ints:
    return np.argsort(-confidence, kind="stable")[: max(1, round(share * len(confidence)))]


def wilson(k: float, n: float) -> tuple[float, float]:
    """95% interval of a share k of n (Wilson 1927): good for few tracks, too. Of none: (0, 1)."""
    if not n:
        return 0.0, 1.0
    z2 = Z**2
    centre, half = k + z2 / 2, (z2 * (k * (n - k) / n + z2 / 4)) ** 0.5
    return max(0.0, float((centre - half) / (n + z2))), min(1.0, float((centre + half) / (n + z2)))


def share_interval(right: Bools, groups: Ints) -> tuple[float, float]:
    """Wilson's interval of the share of `right` (n_tracks,), for as many tracks as these are worth.

    Tracks of one group (n_tracks,) are alike, which the design effect tells, and few groups tell it badly (Korn and
    Graubard 1998). Where hardly any group is partly right, it can't be told, and tracks of a group are worth one.
    """
    n, share = len(right), right.mean() if len(right) else 0.0
    _, of = np.unique(groups, return_inverse=True)
    count = int(of.max(initial=-1)) + 1
    if count == n:
        return wilson(right.sum(), n)
    hits, sizes = np.bincount(of, right), np.bincount(of)
    worth = float(count)
    if min((hits > 0).sum(), (hits < sizes).sum()) >= FEW:
        of_groups = count / (count - 1) * ((hits - share * sizes) ** 2).sum() / n
        worth = n * min(1.0, share * (1 - share) * n / (n - 1) / max(of_groups, 1e-9))
    worth /= _wider(count) ** 2
    return wilson(share * worth, worth)


def _wider(count: int) -> float:
    """How much wider than a normal distribution's an interval has to be that `count` groups tell: Student's t."""
    return float(scipy.stats.t.ppf(0.975, count - 1)) / Z if count > 1 else np.inf


def by_artist(artists: Sequence[str]) -> Ints:
    """A number for each track's artist; a track of an unknown artist, "", is a group of its own."""
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(name or i, len(numbers)) for i, name in enumerate(artists)], int)


def bootstrap(
    score: Callable[[Ints], Any], groups: Ints, lowest: float = 0.0, highest: float = 1.0
) -> tuple[float, float]:
    """95% interval of `score(indices)`, when the `groups` (n_tracks,) are drawn anew, with all of their tracks.

    Between percentiles, moved by their bias (Efron and Tibshirani 1993, chapter 10) and wider where groups are few.
    """
    draws, point = _resampled(score, groups), score(np.arange(len(groups)))
    return _between(draws, point, len(np.unique(groups)), lowest, highest)


def _between(draws: Floats, point: float, count: int, lowest: float = 0.0, highest: float = 1.0) -> tuple[float, float]:
    """`bootstrap`'s interval of a `point`, by `draws` (n,) of it from `count` groups; some may be NaN."""
    draws = draws[np.isfinite(draws)]
    if count < 2 or not len(draws):
        return lowest, highest
    edges = point + _wider(count) * (np.percentile(draws, [2.5, 97.5]) - draws.mean())
    low, high = np.clip(edges, lowest, highest).tolist()
    return low, high


def _resampled(score: Callable[[Ints], Any], groups: Ints) -> Floats:
    """Scores of RESAMPLES draws of as many groups as there are, each with all of its tracks."""
    rng = np.random.default_rng(0)
    _, of = np.unique(groups, return_inverse=True)
    rows, sizes = np.argsort(of, kind="stable"), np.bincount(of)
    firsts, found = np.cumsum(sizes) - sizes, []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(sizes), len(sizes))
        ends = np.cumsum(sizes[drawn])
        found.append(score(rows[np.arange(ends[-1]) + np.repeat(firsts[drawn] - ends + sizes[drawn], sizes[drawn])]))
    return np.array(found)


def evaluate_probabilities(
    probabilities: Floats,
    truth: Ints,
    genres: Sequence[str],
    confidence: Floats | None = None,
    groups: Ints | None = None,
) -> dict[str, Any]:
    """All metrics of tracks' probabilities (n_tracks, n_genres) against their genres (n_tracks,), JSON-ready.

    `confidence` (n_tracks,) in the most probable genre is that genre's probability, unless it is given. Intervals are
    for other artists, not only for other tracks of these, where `groups` (n_tracks,) tell which tracks are of one.
    Raises ValueError for no tracks, shapes that don't fit, or probabilities that don't sum to 1.
    """
    _validate(probabilities, truth)
    sure = probabilities.max(axis=1) if confidence is None else confidence
    guess, n = probabilities.argmax(axis=1), len(truth)
    labels = list(range(len(genres)))
    right = guess == truth
    groups = np.arange(n) if groups is None else groups
    count = len(np.unique(groups))
    f1 = _resampled(lambda rows: _genre_f1(truth[rows], guess[rows], len(genres)), groups)
    macro_f1 = float(sk.f1_score(truth, guess, average="macro", zero_division=0))
    surest = _surest(sure, SUREST)
    return {
        "tracks": n,
        "groups": count,
        "accuracy": float(right.mean()),
        "accuracy_95": share_interval(right, groups),
        "macro_f1": macro_f1,
        "macro_f1_95": _between(np.nanmean(f1, axis=1), macro_f1, count),
        "log_loss": float(sk.log_loss(truth, probabilities, labels=labels)),
        "calibration_error": expected_calibration_error(sure, right),
        "calibration_error_95": bootstrap(lambda rows: expected_calibration_error(sure[rows], right[rows]), groups),
        "calibration_noise": calibration_noise(sure),
        "surest_60": float(right[surest].mean()),
        "surest_60_95": share_interval(right[surest], groups[surest]),
        "genres": _by_genre(truth, guess, genres, groups, f1),
        "confusion": sk.confusion_matrix(truth, guess, labels=labels).tolist(),
        "reliability": reliability(sure, right),
        "coverage": _coverage(sure, right),
    }


def _by_genre(
    truth: Ints, guess: Ints, genres: Sequence[str], groups: Ints, draws: Floats
) -> dict[str, dict[str, Any]]:
    f1 = np.nan_to_num(_genre_f1(truth, guess, len(genres)))
    count, found = len(np.unique(groups)), {}
    for i, genre in enumerate(genres):
        told, there = guess == i, truth == i
        hits = int((told & there).sum())
        found[genre] = {
            "precision": hits / max(1, int(told.sum())),
            "precision_95": share_interval(there[told], groups[told]),
            "recall": hits / max(1, int(there.sum())),
            "recall_95": share_interval(told[there], groups[there]),
            "f1": float(f1[i]),
            "f1_95": _between(draws[:, i], float(f1[i]), count),
            "tracks": int(there.sum()),
        }
    return found


def _coverage(sure: Floats, right: Bools, points: int = 20) -> list[tuple[float, float]]:
    """Share of tracks that are kept, the surest first, and the accuracy on these."""
    return [(i / points, accuracy_of_surest(sure, right, i / points)) for i in range(1, points + 1)]


def _genre_f1(truth: Ints, guess: Ints, n_genres: int) -> Floats:
    """As scikit-learn's f1_score, but fast enough for a bootstrap; NaN for genres that no track is of."""
    both = np.bincount(truth[truth == guess], minlength=n_genres)
    there, told = (np.bincount(values, minlength=n_genres) for values in (truth, guess))
    return np.where(there > 0, 2 * both / np.maximum(1, there + told), np.nan)


def _validate(probabilities: Floats, truth: Ints) -> None:
    if not len(truth):
        raise ValueError("no tracks to evaluate")
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise ValueError(f"probabilities {probabilities.shape} don't fit the genres of {len(truth)} tracks")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("probabilities must sum to 1 for each track")
