"""Metrics of tracks' predictions, with 95% confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn import metrics as sk

from musicclass.evaluation.intervals import Bools, Floats, Interval, Ints, bootstrap_ci, proportion_ci

N_BINS = 15
COVERAGE = 0.6


def evaluate_probabilities(probabilities: Floats, labels: Ints, genres: Sequence[str], artists: Ints) -> dict[str, Any]:
    """All metrics of tracks' probabilities (n_tracks, n_genres) against their labels (n_tracks,), JSON-ready.

    Intervals are clustered by `artists` (n_tracks,), see intervals.artist_ids.
    """
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    correct = predicted == labels
    most_confident = _most_confident(confidence, COVERAGE)
    every_label = list(range(len(genres)))
    return {
        "n_tracks": len(labels),
        "n_artists": int(artists.max()) + 1,
        "accuracy": float(correct.mean()),
        "accuracy_ci95": proportion_ci(correct, artists),
        **_f1_scores(labels, predicted, genres, artists),
        "log_loss": float(sk.log_loss(labels, probabilities, labels=every_label)),
        "ece": adaptive_ece(confidence, correct),
        "ece_ci95": _ece_ci(confidence, correct, artists),
        "ece_if_calibrated": expected_ece_if_calibrated(confidence),
        "accuracy_at_60pct_coverage": float(correct[most_confident].mean()),
        "accuracy_at_60pct_coverage_ci95": proportion_ci(correct[most_confident], artists[most_confident]),
        "confusion_matrix": sk.confusion_matrix(labels, predicted, labels=every_label).tolist(),
        "reliability_bins": reliability_bins(confidence, correct),
        "risk_coverage_curve": risk_coverage_curve(confidence, correct),
    }


def adaptive_ece(confidence: Floats, correct: Bools) -> float:
    """Expected calibration error over equal-mass bins (Nguyen and O'Connor 2015; Nixon et al. 2019).

    The mean difference between confidence (n_tracks,) and accuracy in bins of equally many tracks.
    """
    order = np.argsort(confidence, kind="stable")
    sums = np.add.reduceat((confidence - correct)[order], _bin_starts(len(correct)))
    return float(np.abs(sums).sum() / len(correct))


def reliability_bins(confidence: Floats, correct: Bools) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of tracks of each equal-mass bin, in order of confidence."""
    bins = np.split(np.argsort(confidence, kind="stable"), _bin_starts(len(correct))[1:])
    return [(float(confidence[rows].mean()), float(correct[rows].mean()), len(rows)) for rows in bins]


def _bin_starts(n: int) -> Ints:
    i = np.arange(min(n, N_BINS))
    size, n_larger = divmod(n, len(i))
    return i * size + np.minimum(i, n_larger)


def expected_ece_if_calibrated(confidence: Floats) -> float:
    """The mean ECE of a perfectly calibrated model with these confidences: above 0, as tracks are few."""
    rng = np.random.default_rng(0)
    draws = (rng.random(len(confidence)) < confidence for _ in range(200))
    return float(np.mean([adaptive_ece(confidence, correct) for correct in draws]))


def accuracy_at_coverage(confidence: Floats, correct: Bools, coverage: float = COVERAGE) -> float:
    """Accuracy on the share `coverage` of tracks with the highest confidence."""
    return float(correct[_most_confident(confidence, coverage)].mean())


def risk_coverage_curve(confidence: Floats, correct: Bools) -> list[tuple[float, float]]:
    """Coverage, and the accuracy at it (Geifman and El-Yaniv 2017, who plot its complement, the risk)."""
    return [(i / 20, accuracy_at_coverage(confidence, correct, i / 20)) for i in range(1, 21)]


def artist_overlap(artists: Sequence[str], training_artists: Iterable[str]) -> float:
    """The share of the evaluated tracks of known artists whose artist is in training, too; 0 where none is known."""
    known = [artist for artist in artists if artist]
    training = set(training_artists)
    return sum(artist in training for artist in known) / max(1, len(known))


def _most_confident(confidence: Floats, coverage: float) -> Ints:
    return np.argsort(-confidence, kind="stable")[: max(1, round(coverage * len(confidence)))]


def _f1(counts: Ints, ids: Ints) -> Floats:
    """F1 over the artists `ids` (..., n) of counts (3, ..., n_artists): true positives, labels, predictions.

    NaN where no track has the label.
    """
    true_positives, n_labels, n_predicted = counts[..., ids].sum(axis=-1)
    return np.where(n_labels > 0, 2 * true_positives / np.maximum(1, n_labels + n_predicted), np.nan)


def _f1_scores(labels: Ints, predicted: Ints, genres: Sequence[str], artists: Ints) -> dict[str, Any]:
    """Macro F1 and macro recall (of the genres that have tracks), and precision, recall and F1 of each genre."""
    columns, n_artists = np.arange(len(genres)), int(artists.max()) + 1
    of_label, of_predicted = (values == columns[:, None] for values in (labels, predicted))  # (n_genres, n_tracks)
    kinds = (of_label & of_predicted, of_label, of_predicted)
    counts = np.array([[np.bincount(artists, rows, n_artists) for rows in kind] for kind in kinds])
    scores = sk.precision_recall_fscore_support(labels, predicted, labels=columns, zero_division=0)
    by_genre = {}
    for i, (precision, recall, f1, support) in enumerate(zip(*scores, strict=True)):
        by_genre[genres[i]] = {
            "precision": float(precision),
            "precision_ci95": proportion_ci(of_label[i][of_predicted[i]], artists[of_predicted[i]]),
            "recall": float(recall),
            "recall_ci95": proportion_ci(of_predicted[i][of_label[i]], artists[of_label[i]]),
            "f1": float(f1),
            "f1_ci95": bootstrap_ci(partial(_f1, counts[:, i]), n_artists),
            "n_tracks": int(support),
        }
    return {
        "macro_f1": float(sk.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        "macro_f1_ci95": bootstrap_ci(lambda ids: np.nanmean(_f1(counts, ids), axis=0), n_artists),
        "macro_recall": float(np.mean([scores["recall"] for scores in by_genre.values() if scores["n_tracks"]])),
        "genres": by_genre,
    }


def _ece_ci(confidence: Floats, correct: Bools, artists: Ints) -> Interval:
    order, sizes = np.argsort(artists, kind="stable"), np.bincount(artists)
    tracks = np.split(order, np.cumsum(sizes)[:-1])  # of each artist

    def ece(ids: Ints) -> float:
        rows = np.concatenate([tracks[i] for i in ids])
        return adaptive_ece(confidence[rows], correct[rows])

    return bootstrap_ci(lambda ids: np.apply_along_axis(ece, -1, ids), len(tracks))
