"""A bundle's predictions on tracks whose genre is known, and what they are worth."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.classifier import Classifier
from musicclass.confidence import Ints
from musicclass.datasets import Dataset, Track
from musicclass.errors import AudioError, DatasetError
from musicclass.files import write_text
from musicclass.prediction import UNKNOWN
from musicclass.printing import progress

# track, artist ("": not known; older cards have none), genre (the true one), told (a genre or "unknown"), familiarity,
# confidence, probabilities (as its genres)
Row = dict[str, Any]


def predict_tracks(classifier: Classifier, dataset: Dataset, ids: Iterable[str]) -> list[Row]:
    """A row for each track that can be used; the others are named in warnings.

    Raises DatasetError when the data set has a genre that the model doesn't know.
    """
    strange = sorted(set(dataset.genres) - set(classifier.genres))
    if strange:
        raise DatasetError(
            f"{dataset.name} has genres that {classifier.bundle.name} doesn't know: {', '.join(strange)}"
        )
    wanted, rows = set(ids), []
    tracks = [track for track in dataset.tracks if track.id in wanted]
    features = classifier.bundle.features
    for track, frames in dataset.usable(progress(tracks, "Tracks"), features):
        try:
            found = classifier.predict_log_mel(frames, len(frames) / features.frames_per_second, track.id)
        except AudioError as error:
            warnings.warn(f"{track.id} is left out: {error}", stacklevel=2)
            continue
        shares = [found.probabilities[genre] for genre in classifier.genres]
        rows.append(as_row(track, found.genre, found.familiarity, found.confidence, shares))
    return rows


def as_row(track: Track, told: str, familiarity: float, confidence: float, probabilities: Sequence[float]) -> Row:
    """One track's row."""
    return {
        "track": track.id,
        "artist": track.artist,
        "genre": track.genre,
        "told": told,
        "familiarity": round(familiarity, 6),
        "confidence": round(confidence, 6),
        "probabilities": [float(f"{share:.6g}") for share in probabilities],  # small ones matter to the log loss
    }


def artists(rows: Iterable[Row]) -> Ints:
    """A number for each row's artist (see `metrics.by_artist`)."""
    from musicclass.training.metrics import by_artist

    return by_artist([row.get("artist", "") for row in rows])


def score(rows: list[Row], genres: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of `predict_tracks`' rows (see metrics.py). Raises DatasetError when there is none."""
    from musicclass.training.metrics import evaluate_probabilities

    if not rows:
        raise DatasetError("no track left to evaluate")
    probabilities = np.array([row["probabilities"] for row in rows], dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidence = np.array([row["confidence"] for row in rows], dtype=np.float64)
    truth = np.array([genres.index(row["genre"]) for row in rows])
    metrics = evaluate_probabilities(probabilities, truth, genres, confidence, artists(rows))
    return metrics | {"unknown": float(np.mean([row["told"] == UNKNOWN for row in rows]))}


def in_words(metrics: dict[str, Any], kind: str = "") -> str:
    """Such as "68.0% of 197 validation tracks (95% interval 61.4% to 74.1%)", with `kind` "validation"."""
    return "{:.1%} of {} tracks (95% interval {:.1%} to {:.1%})".format(
        metrics["accuracy"], f"{metrics['tracks']} {kind}".rstrip(), *metrics["accuracy_95"]
    )


def mean_and_deviation(runs: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Metric -> its mean over runs with different seeds, and their standard deviation (n - 1)."""
    names = [name for name in ("accuracy", "macro_f1", "log_loss", "calibration_error") if name in runs[0]]
    values = {name: np.array([run[name] for run in runs]) for name in names}
    return {name: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for name, v in values.items()}


def seen_in_training(card: dict[str, Any], ids: Iterable[str]) -> list[str]:
    """Those of the tracks that the model was trained on or chosen by."""
    sides = card["data"]["split"]
    return sorted(set(ids) & {*sides["train"], *sides["valid"]})


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """The training history as CSV, one row for each epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())
