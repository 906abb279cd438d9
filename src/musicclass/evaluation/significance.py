"""Paired comparison of two models on the same tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musicclass.errors import DatasetError
from musicclass.evaluation.evaluate import Record
from musicclass.evaluation.intervals import Interval, Ints, artist_ids

MIN_ARTISTS = 6  # with less, p is never below 0.05
MAX_ENUMERATED = 13
SMALLEST = 1e-6  # difference


def compare(records_a: Sequence[Record], records_b: Sequence[Record]) -> dict[str, Any]:
    """The difference in accuracy, b - a, on the tracks that are in both, with its interval and p-value; JSON-ready.

    Both are of the sign-flip test by artist, since tracks of one artist are not independent: the interval has the
    differences that the test doesn't reject. With less than MIN_ARTISTS, it can reject none. Raises DatasetError when
    the two have no track in common.
    """
    of_b = {record.track: record for record in records_b}
    pairs = [(record, of_b[record.track]) for record in records_a if record.track in of_b]
    if not pairs:
        raise DatasetError("the two models have no evaluated track in common; give the DATA to evaluate them on")
    a, b = (np.array([pair[i].top_genre == pair[i].label for pair in pairs]) for i in range(2))
    artists = artist_ids([first.artist or second.artist for first, second in pairs])
    sizes = np.bincount(artists)
    differences = np.bincount(artists, np.int64(b) - np.int64(a)).astype(np.intp)
    p_value = sign_flip_p_value(differences)
    return {
        "n_tracks": len(pairs),
        "n_artists": len(sizes),
        "accuracy": [float(a.mean()), float(b.mean())],
        "difference": float(b.mean() - a.mean()),
        "difference_ci95": sign_flip_ci(differences, sizes, p_value),
        "only_a_correct": int((a & ~b).sum()),
        "only_b_correct": int((b & ~a).sum()),
        "p_value": p_value,
    }


def sign_flip_ci(differences: Ints, sizes: Ints, p_value: float) -> Interval:
    """95% interval of the difference in accuracy: the sign-flip test inverted, by typical values (Hartigan 1969).

    A difference is rejected where less than 2.5% of the subsets of artists are on its other side. Of more than
    2^MAX_ENUMERATED subsets, a sample is drawn; its error doesn't make the interval contradict the p-value for 0.
    """
    n = len(sizes)
    if n <= MAX_ENUMERATED:
        chosen = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float32)
    else:
        chosen = np.random.default_rng(0).integers(0, 2, (2**MAX_ENUMERATED, n), np.int8).astype(np.float32)
    totals, sums = chosen @ sizes.astype(np.float32), chosen @ differences.astype(np.float32)
    values = np.sort(sums[totals > 0] / totals[totals > 0])
    rank = int(0.025 * len(chosen))
    n_empty = len(chosen) - len(values)  # on both sides
    if rank < n_empty:
        return -1.0, 1.0
    low, high = float(values[rank - n_empty]), float(values[len(values) - 1 - (rank - n_empty)])
    if p_value >= 0.05:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, SMALLEST), high) if differences.sum() > 0 else (low, min(high, -SMALLEST))


def sign_flip_p_value(differences: Ints) -> float:
    """Two-sided p-value of the sum of `differences` (n_artists,) if the sign of each were random.

    Fisher's randomization test for pairs, exact. Where each artist has one track, it equals McNemar's exact test
    (McNemar 1947; Dietterich 1998).
    """
    sizes = np.abs(differences)
    distribution = np.ones(1)  # of the sum over the artists so far, from its minimum, in steps of 2
    for size in sizes[sizes > 0].tolist():
        halves = np.pad(distribution / 2, (0, size))
        distribution = halves + np.roll(halves, size)
    sums = 2 * np.arange(len(distribution)) - sizes.sum()
    return float(min(1.0, distribution[np.abs(sums) >= abs(int(differences.sum()))].sum()))
