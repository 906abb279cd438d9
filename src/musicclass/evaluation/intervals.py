"""95% confidence intervals of metrics of tracks, by artist: tracks of one artist are not independent.

proportion_ci  of a proportion, such as accuracy: Wilson's interval for the effective sample size
bootstrap_ci   of any other metric: the BCa bootstrap over artists
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Interval = tuple[float, float]

RESAMPLES = 2000
Z = 1.959964  # 95% of a standard normal distribution lie within -Z..Z
MIN_MIXED_CLUSTERS = 3


def artist_ids(artists: Sequence[str]) -> Ints:
    """Numbers 0, 1, ... (n_tracks,), one for each artist; a track of an unknown artist, "", is its own artist."""
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(name or i, len(numbers)) for i, name in enumerate(artists)], dtype=np.intp)


def wilson(k: float, n: float) -> Interval:
    """95% interval of a proportion k / n (Wilson 1927), which holds for small n as well; (0, 1) where n is 0."""
    if not n:
        return 0.0, 1.0
    z2 = Z**2
    center, half_width = k + z2 / 2, (z2 * (k * (n - k) / n + z2 / 4)) ** 0.5
    return max(0.0, float((center - half_width) / (n + z2))), min(1.0, float((center + half_width) / (n + z2)))


def proportion_ci(correct: Bools, artists: Ints) -> Interval:
    """95% interval of the proportion of `correct` (n_tracks,), clustered by `artists` (n_tracks,).

    Wilson's interval for the effective sample size n / deff, corrected by Student's t for few artists (Korn and
    Graubard 1998). Where less than MIN_MIXED_CLUSTERS artists have a correct or an incorrect track, the design effect
    can't be estimated; the effective sample size is then the number of artists.
    """
    n, proportion = len(correct), correct.mean() if len(correct) else 0.0
    _, cluster = np.unique(artists, return_inverse=True)
    n_clusters = int(cluster.max(initial=-1)) + 1
    if n_clusters == n:
        return wilson(correct.sum(), n)
    hits, sizes = np.bincount(cluster, correct), np.bincount(cluster)
    n_effective = float(n_clusters)
    if min((hits > 0).sum(), (hits < sizes).sum()) >= MIN_MIXED_CLUSTERS:
        variance = n_clusters / (n_clusters - 1) * ((hits - proportion * sizes) ** 2).sum() / n
        n_effective = n * min(1.0, proportion * (1 - proportion) * n / (n - 1) / max(variance, 1e-9))
    t = float(scipy.stats.t.ppf(0.975, n_clusters - 1)) if n_clusters > 1 else np.inf
    n_effective *= (Z / t) ** 2
    return wilson(proportion * n_effective, n_effective)


def bootstrap_ci(statistic: Callable[[Ints], Any], n_artists: int, bounds: Interval = (0.0, 1.0)) -> Interval:
    """95% interval of `statistic(ids)` when artists, numbered 0 to n_artists - 1, are resampled with replacement.

    Bias-corrected and accelerated (BCa, Efron 1987). Where that is undefined, as for a statistic that no resample
    lowers: between percentiles, extended to the estimate. For a single artist: the `bounds` of the statistic.
    The statistic takes ids of the shape (..., n_artists), and gives values of the shape (...,).
    """
    if n_artists < 2:
        return bounds
    artists = np.arange(n_artists)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, where BCa is undefined
        result = scipy.stats.bootstrap(
            (artists,), lambda ids, axis: statistic(ids), vectorized=True, batch=200, n_resamples=RESAMPLES, rng=0
        )
    low, high = (float(value) for value in result.confidence_interval)
    if not np.isfinite([low, high]).all():
        draws = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
        if not len(draws):
            return bounds
        estimate = float(statistic(artists))
        low, high = (float(value) for value in np.percentile(draws, [2.5, 97.5]))
        low, high = min(low, estimate), max(high, estimate)
    return max(bounds[0], low), min(bounds[1], high)
