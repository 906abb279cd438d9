"""Predictions for tracks of a data set, as records: to evaluate, to write and to read."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.classifier import Classifier
from musicclass.datasets import Dataset
from musicclass.errors import AudioError, DatasetError
from musicclass.files import write_text
from musicclass.prediction import UNKNOWN
from musicclass.progress import ProgressFn, no_progress

# Columns of predictions.csv
TEXTS = ("track", "artist", "label", "predicted")
SCORES = ("confidence", "familiarity")
PREFIX = "prob_"  # of a genre's probability


@dataclass(frozen=True)
class Record:
    """The prediction for one track whose genre is known."""

    track: str
    artist: str  # "": not known
    label: str  # the true genre
    predicted: str  # a genre, or "unknown"
    confidence: float
    familiarity: float
    probabilities: dict[str, float]

    @property
    def top_genre(self) -> str:
        """The most probable genre."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def evaluate_tracks(
    classifier: Classifier, dataset: Dataset, ids: Iterable[str], progress: ProgressFn = no_progress
) -> list[Record]:
    """A record for each of the tracks `ids`; a track that can't be used is skipped, with a warning.

    Raises DatasetError when the data set has a genre that the model doesn't have.
    """
    unknown = sorted(set(dataset.genres) - set(classifier.genres))
    if unknown:
        raise DatasetError(f"{dataset.name} has genres that {classifier.model.name} doesn't have: {', '.join(unknown)}")
    wanted, records = set(ids), []
    tracks = [track for track in dataset.tracks if track.id in wanted]
    model = classifier.model
    for track, features in dataset.iter_features(progress(tracks, "Tracks"), model.features, model.uses_tagger):
        try:
            prediction = classifier.predict_features(features, track.id)
        except AudioError as error:
            warnings.warn(f"{track.id} is skipped: {error}", stacklevel=2)
            continue
        probabilities = {genre: prediction.probabilities[genre] for genre in classifier.genres}
        scores = (prediction.confidence, prediction.familiarity, probabilities)
        records.append(Record(track.id, track.artist, track.genre, prediction.genre, *scores))
    return records


def compute_metrics(
    records: Sequence[Record], genres: Sequence[str], training_artists: Iterable[str] = ()
) -> dict[str, Any]:
    """All metrics of records (see metrics.py), with `artist_overlap` where artists of the records are in training.

    Raises DatasetError when there are no records.
    """
    from musicclass.evaluation.intervals import artist_ids
    from musicclass.evaluation.metrics import artist_overlap, evaluate_probabilities

    if not records:
        raise DatasetError("no tracks left to evaluate; see the warnings for why they were skipped")
    probabilities = np.array([[record.probabilities[genre] for genre in genres] for record in records], np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = np.array([list(genres).index(record.label) for record in records])
    artists = [record.artist for record in records]
    metrics = evaluate_probabilities(probabilities, labels, genres, artist_ids(artists))
    metrics["unknown_rate"] = float(np.mean([record.predicted == UNKNOWN for record in records]))
    overlap = artist_overlap(artists, training_artists)
    return metrics | ({"artist_overlap": overlap} if overlap else {})


def write_predictions(path: Path, records: Mapping[str, Sequence[Record]], genres: Sequence[str]) -> None:
    """The records of each subset as CSV, with the columns subset, TEXTS, SCORES and prob_<genre>."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["subset", *TEXTS, *SCORES, *(PREFIX + genre for genre in genres)])
    for subset in records:
        for record in records[subset]:
            scores = [record.confidence, record.familiarity, *(record.probabilities[genre] for genre in genres)]
            texts = (getattr(record, name) for name in TEXTS)
            writer.writerow([subset, *texts, *(f"{score:.6g}" for score in scores)])
    write_text(path, text.getvalue())


def read_predictions(path: Path) -> dict[str, list[Record]]:
    """The records that `write_predictions` wrote, by subset; empty where there is no such file.

    Raises DatasetError for a file that isn't one of these.
    """
    if not path.exists():
        return {}
    records: dict[str, list[Record]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                probabilities = {name.removeprefix(PREFIX): float(row[name]) for name in row if name.startswith(PREFIX)}
                fields: dict[str, Any] = {name: row[name] for name in TEXTS}
                fields |= {name: float(row[name]) for name in SCORES}
                records.setdefault(row["subset"], []).append(Record(**fields, probabilities=probabilities))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a table of predictions ({error}); evaluate the model anew") from None
    return records


def mean_and_std(runs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Metric -> mean and standard deviation (n - 1) over runs with different seeds."""
    names = [name for name in ("accuracy", "macro_f1", "log_loss", "ece") if name in runs[0]]
    values = {name: np.array([run[name] for run in runs]) for name in names}
    return {name: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for name, v in values.items()}
