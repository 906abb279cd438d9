"""Whether one model is better than another on the same tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musicclass.confidence import Ints
from musicclass.errors import DatasetError
from musicclass.training.evaluate import Row, artists
from musicclass.training.metrics import bootstrap


def compare(ours: Sequence[Row], theirs: Sequence[Row], our_genres: Sequence[str], their_genres: Sequence[str]) -> Row:
    """Paired comparison of two models' rows (see evaluate.py), on the tracks that are in both.

    A sign-flip test and a bootstrap interval of the difference in accuracy, second less first, both by artist: tracks
    of one artist are won or lost together. Raises DatasetError when they share no track.
    """
    first, second = _right(ours, our_genres), _right(theirs, their_genres)
    their_row = {row["track"]: row for row in theirs}
    common = [{**their_row[row["track"]], **row} for row in ours if row["track"] in second]  # older cards: no artists
    if not common:
        raise DatasetError("the two models were not judged on any common track; give the data to judge them on")
    a, b = (np.array([right[row["track"]] for row in common]) for right in (first, second))
    groups = artists(common)
    return {
        "tracks": len(common),
        "groups": len(np.unique(groups)),
        "accuracy": [float(a.mean()), float(b.mean())],
        "difference": float(b.mean() - a.mean()),
        "difference_95": bootstrap(lambda rows: b[rows].mean() - a[rows].mean(), groups, lowest=-1),
        "only_first_right": int((a & ~b).sum()),
        "only_second_right": int((b & ~a).sum()),
        "p": sign_flip_p(np.bincount(groups, np.int64(b) - np.int64(a)).astype(int)),
    }


def sign_flip_p(differences: Ints) -> float:
    """Two-sided p of the sum of groups' differences (n_groups,), were each as likely to be the other way about.

    Fisher's randomization test, exact. With differences of -1, 0 and 1, as where each track is a group, it is
    McNemar's (McNemar 1947; Dietterich 1998).
    """
    sizes = np.abs(differences)
    chances = np.ones(1)  # of the sums that the groups so far can have, from the lowest, in steps of 2
    for size in sizes[sizes > 0].tolist():
        halves = np.pad(chances / 2, (0, size))
        chances = halves + np.roll(halves, size)
    sums = 2 * np.arange(len(chances)) - sizes.sum()
    return float(min(1.0, chances[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def _right(rows: Sequence[Row], genres: Sequence[str]) -> dict[str, bool]:
    return {row["track"]: genres[int(np.argmax(row["probabilities"]))] == row["genre"] for row in rows}
