"""Whether one model is better than another on the same tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from musicclass.errors import DatasetError
from musicclass.training.metrics import bootstrap

Row = dict[str, Any]


def compare(ours: Sequence[Row], theirs: Sequence[Row], our_genres: Sequence[str], their_genres: Sequence[str]) -> Row:
    """Paired comparison of two models' rows (see evaluate.py), on the tracks that are in both.

    Exact McNemar test (McNemar 1947; Dietterich 1998) and a bootstrap interval of the difference in accuracy,
    second less first. Raises DatasetError when they share no track.
    """
    first, second = _right(ours, our_genres), _right(theirs, their_genres)
    tracks = sorted(set(first) & set(second))
    if not tracks:
        raise DatasetError("the two models were not judged on any common track; give the data to judge them on")
    a, b = (np.array([right[name] for name in tracks]) for right in (first, second))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {
        "tracks": len(tracks),
        "accuracy": [float(a.mean()), float(b.mean())],
        "difference": float(b.mean() - a.mean()),
        "difference_95": bootstrap(lambda rows: b[rows].mean() - a[rows].mean(), len(tracks)),
        "only_first_right": only_a,
        "only_second_right": only_b,
        "mcnemar_p": float(p),
    }


def _right(rows: Sequence[Row], genres: Sequence[str]) -> dict[str, bool]:
    return {row["track"]: genres[int(np.argmax(row["probabilities"]))] == row["genre"] for row in rows}
