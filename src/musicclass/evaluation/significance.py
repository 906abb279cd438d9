"""Paired comparison of two models on the same tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musicclass.errors import DatasetError
from musicclass.evaluation.evaluate import Record
from musicclass.evaluation.intervals import Ints, artist_ids, bootstrap_ci


def compare(records_a: Sequence[Record], records_b: Sequence[Record]) -> dict[str, Any]:
    """The difference in accuracy, b - a, on the tracks that are in both, with its interval and p-value; JSON-ready.

    Both are by artist, since tracks of one artist are not independent: a BCa bootstrap over artists and an exact
    sign-flip test. Raises DatasetError when the two have no track in common.
    """
    of_b = {record.track: record for record in records_b}
    pairs = [(record, of_b[record.track]) for record in records_a if record.track in of_b]
    if not pairs:
        raise DatasetError("the two models have no evaluated track in common; give the DATA to evaluate them on")
    a, b = (np.array([pair[i].top_genre == pair[i].label for pair in pairs]) for i in range(2))
    artists = artist_ids([first.artist or second.artist for first, second in pairs])
    sizes = np.bincount(artists)
    differences = np.bincount(artists, np.int64(b) - np.int64(a))

    def difference(ids: Ints) -> Any:
        return differences[ids].sum(axis=-1) / sizes[ids].sum(axis=-1)

    return {
        "n_tracks": len(pairs),
        "n_artists": len(sizes),
        "accuracy": [float(a.mean()), float(b.mean())],
        "difference": float(b.mean() - a.mean()),
        "difference_ci95": bootstrap_ci(difference, len(sizes), bounds=(-1.0, 1.0)),
        "only_a_correct": int((a & ~b).sum()),
        "only_b_correct": int((b & ~a).sum()),
        "p_value": sign_flip_p_value(differences.astype(np.intp)),
    }


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
