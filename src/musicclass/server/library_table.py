"""A table written by `musicclass library`, in memory, and the user's corrections, in a CSV beside it."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.errors import LibraryError, import_optional
from musicclass.features import Array
from musicclass.files import write_text
from musicclass.workers import OK

CREATE_HINT = "musicclass library FOLDER --out genres.parquet"
MAX_MAP_POINTS = 20_000
PROB_FLOOR = 1e-4  # of probabilities, for the map: tables are rounded
CORRECTION_COLUMNS = ("track", "genre", "predicted")  # `musicclass train` reads track and genre


@dataclass(frozen=True)
class LibraryTrack:
    """A row of the table that has a genre."""

    row: int
    path: str
    name: str  # the end of the path
    genre: str  # the prediction
    top_genre: str
    confidence: float
    duration: float
    tags: str = ""  # separated by commas
    correction: str | None = None  # the genre according to the user


ORDERS: dict[str, Callable[[LibraryTrack], Any]] = {
    "least_confident": lambda track: track.confidence,
    "most_confident": lambda track: -track.confidence,
    "path": lambda track: track.path.lower(),
    "genre": lambda track: (track.genre, -track.confidence),
}


class LibraryTable:
    """A library's table. Raises LibraryError for a file that can't be read as one."""

    def __init__(self, path: Path):
        self.path = path
        self.corrections = Corrections(path.with_name(path.name + ".corrections.csv"))
        self.failed: Counter[str] = Counter()  # files without a genre, by status
        self.genres: list[str] = []
        self._tracks: list[LibraryTrack] = []
        try:
            self._probabilities = self._load()
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:  # Arrow's and JSON's are ValueErrors
            hint = f"make one: {CREATE_HINT}"
            raise LibraryError(f"{path}: can't be read as a table of musicclass ({_cause(error)}); {hint}") from None
        if not self.tracks():
            raise LibraryError(f"{path}: none of its files has a genre; classify some: {CREATE_HINT}")

    def _load(self) -> Array:
        """Read the rows; returns probabilities (n_tracks, n_genres)."""
        probabilities = []
        for row in _read(self.path):
            if not row["status"]:
                raise ValueError("a row has no status")
            if row["status"] != OK:
                self.failed[str(row["status"])] += 1
                continue
            self.genres = self.genres or [name.removeprefix("prob_") for name in row if name.startswith("prob_")]
            path, genre, top_genre = (str(row[name]) for name in ("file", "genre", "top_genre"))
            numbers = [float(row[name]) for name in ("confidence", "duration", *(f"prob_{g}" for g in self.genres))]
            if not np.isfinite(numbers).all():
                raise ValueError(f"{path} has numbers that aren't finite")
            row_number, confidence, duration = len(self._tracks), *numbers[:2]
            name, tags = short_name(path), str(row.get("tags") or "")
            self._tracks.append(LibraryTrack(row_number, path, name, genre, top_genre, confidence, duration, tags))
            probabilities.append(np.array(numbers[2:], np.float32))
        return np.array(probabilities)

    def tracks(self) -> list[LibraryTrack]:
        """All tracks with their corrections. Raises LibraryError when these can't be read."""
        corrections = self.corrections.read()
        return [
            replace(track, correction=corrections[track.path]) if track.path in corrections else track
            for track in self._tracks
        ]

    def counts(self) -> dict[str, int]:
        """The number of tracks of each genre, corrected or predicted; the most frequent first."""
        return dict(Counter(track.correction or track.genre for track in self.tracks()).most_common())

    def map(self) -> dict[str, Any]:
        """The tracks in the plane, and the share of the variance that it shows; of many, MAX_MAP_POINTS."""
        count = min(MAX_MAP_POINTS, len(self._tracks))
        rows = np.linspace(0, len(self._tracks) - 1, count).astype(int).tolist()
        points, explained = project(self._probabilities[rows])
        tracks = [self._tracks[row] for row in rows]
        return {
            "rows": rows,
            "x": points[:, 0].round(3).tolist(),
            "y": points[:, 1].round(3).tolist(),
            "genres": [track.genre for track in tracks],
            "top_genres": [track.top_genre for track in tracks],
            "confidence": [round(track.confidence, 3) for track in tracks],
            "names": [track.name for track in tracks],
            "explained_variance": round(explained, 3),
        }

    def find(
        self, text: str = "", genre: str = "", corrected: bool | None = None, order: str = "least_confident"
    ) -> list[LibraryTrack]:
        """The tracks of a genre (corrected or predicted) whose paths contain all words of `text`, in one of ORDERS."""
        words = text.lower().split()
        matching = (
            track
            for track in self.tracks()
            if all(word in track.path.lower() for word in words)
            and (not genre or (track.correction or track.genre) == genre)
            and (corrected is None or corrected == (track.correction is not None))
        )
        return sorted(matching, key=ORDERS[order])


class Corrections:
    """Genres by path, in a CSV that others may edit as well: it is read for each request, and written as a whole."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> dict[str, str]:
        """The corrected genre of each track. Raises LibraryError when the file can't be read."""
        return {track: row["genre"] for track, row in self._rows()[1].items() if row["genre"]}

    def write(self, track: str, genre: str | None, predicted: str) -> None:
        """Save a genre or, with None, delete it. Raises OSError and LibraryError, and then nothing has changed."""
        with self._lock:
            columns, rows = self._rows()
            row = rows.pop(track, {})
            if genre is not None:
                rows[track] = row | {"track": track, "genre": genre, "predicted": predicted}
            write_text(self.path, self._format(columns, rows))

    def text(self) -> str:
        """The corrections as CSV. Raises LibraryError as `read` does."""
        return self._format(*self._rows())

    @staticmethod
    def _format(columns: list[str], rows: dict[str, dict[str, str]]) -> str:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows[track] for track in sorted(rows))
        return text.getvalue()

    def _rows(self) -> tuple[list[str], dict[str, dict[str, str]]]:
        """Its columns, among them CORRECTION_COLUMNS, and its rows by track."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file, restval="")
                rows = {row["track"]: {"genre": "", **row} for row in table}
                return list(dict.fromkeys((*CORRECTION_COLUMNS, *(table.fieldnames or ())))), rows
        except FileNotFoundError:
            return list(CORRECTION_COLUMNS), {}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            hint = "repair it, or move it away"
            raise LibraryError(f"{self.path}: can't be read as corrections ({_cause(error)}); {hint}") from None


def _cause(error: Exception) -> str:
    return f"column {error} is missing" if isinstance(error, KeyError) else str(error)


def project(probabilities: Array) -> tuple[Array, float]:
    """Probabilities (n, n_genres) -> points (n, 2) in -1..1, and the share of the variance that they explain.

    The first two principal components of centred log-ratios (Aitchison 1982), which are the logits without their mean.
    """
    logs = np.log(np.maximum(probabilities, PROB_FLOOR))
    ratios = logs - logs.mean(axis=1, keepdims=True)
    ratios -= ratios.mean(axis=0)
    variances, components = np.linalg.eigh(ratios.T @ ratios)
    components = components[:, ::-1][:, :2]
    components *= np.sign(components[np.abs(components).argmax(axis=0), [0, 1]])  # eigenvectors have no sign
    points = ratios @ components
    explained = float(variances[-2:].sum() / variances.sum()) if variances.sum() > 0 else 1.0
    return (points / max(float(np.abs(points).max()), 1e-9)).astype(np.float32), explained


def short_name(path: str) -> str:
    """The last two parts of a path: usually album and song."""
    return " / ".join(re.split(r"[\\/]", path)[-2:])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table. Raises LibraryError for another suffix, MissingExtraError, and what readers raise."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        parquet = import_optional("pyarrow.parquet", "library")
        with parquet.ParquetFile(path) as table:
            names = [name for name in table.schema_arrow.names if name != "segments"]
            for batch in table.iter_batches(columns=names):
                yield from batch.to_pylist()
    elif suffix in (".csv", ".jsonl"):
        csv.field_size_limit(2**31 - 1)  # a track's segments are one field
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = (line for line in file if line.strip())
            yield from csv.DictReader(file) if suffix == ".csv" else map(json.loads, lines)
    else:
        raise LibraryError(f"{path}: not a table of musicclass; its name has to end in .parquet, .csv or .jsonl")
