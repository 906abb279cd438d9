"""A table made by `musicclass library`, to be looked at; and what its owner corrects, in a file beside it."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.datasets import AUDIO_SUFFIXES
from musicclass.errors import LibraryError, require
from musicclass.features import Array
from musicclass.files import write_text
from musicclass.library import store
from musicclass.library.run import OK
from musicclass.library.writers import original_path

MAKE = "musicclass library FOLDER --out genres.parquet"
POINTS = 20_000  # of the map at most
SMALL = 1e-4  # a probability below it counts as it: rounding must not shape the map
COLUMNS = ("path", "genre", "best_guess", "confidence", "duration", "status")  # and p_...
CORRECTIONS = ("track", "genre", "told")  # as `musicclass train` reads labels


@dataclass(frozen=True)
class Song:
    """One row that has a genre."""

    row: int
    path: str
    genre: str
    best_guess: str
    confidence: float
    duration: float


class Collection:
    """A library's table in memory, a few hundred bytes for each song. Raises LibraryError for what is none."""

    def __init__(self, path: Path):
        self.path = path
        self.corrections = Corrections(path.with_name(path.name + ".corrections.csv"))
        self.failed: Counter[str] = Counter()
        self.songs: list[Song] = []
        self.genres: list[str] = []
        try:
            self.shares = self._load()
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:  # Arrow's and JSON's are ValueErrors
            raise LibraryError(
                f"{path}: can't be read as a table of musicclass ({error!r}); make one: {MAKE}"
            ) from None
        if not self.songs:
            raise LibraryError(f"{path}: no song in it has a genre; hear some: {MAKE}")

    def _load(self) -> Array:
        """Fill `songs`, `genres` and `failed`; returns probabilities (songs, genres)."""
        shares = array("f")
        for row in _read(self.path):
            if not row["status"]:
                raise ValueError("a row has no status")
            if row["status"] != OK:
                self.failed[str(row["status"])] += 1
                continue
            self.genres = self.genres or [name.removeprefix("p_") for name in row if name.startswith("p_")]
            path, genre, best_guess = (str(row[name]) for name in ("path", "genre", "best_guess"))
            numbers = float(row["confidence"]), float(row["duration"])
            self.songs.append(Song(len(self.songs), path, genre, best_guess, *numbers))
            shares.extend(float(row[f"p_{name}"]) for name in self.genres)
        found: Array = np.frombuffer(shares, np.float32).reshape(len(self.songs), len(self.genres))
        if not np.isfinite(found).all() or not all(np.isfinite((s.confidence, s.duration)).all() for s in self.songs):
            raise ValueError("it holds numbers that are none")
        return found

    def counts(self) -> dict[str, int]:
        """How many songs each genre has, the most first; with corrections. Raises LibraryError as `Corrections`."""
        self.corrections.refresh()
        told = Counter(self.corrections.of(song.path) or song.genre for song in self.songs)
        return dict(told.most_common())

    def map(self) -> dict[str, Any]:
        """Where songs lie by their probabilities: rows and x, y for each, and the share of the spread that shows."""
        picked = np.unique(np.linspace(0, len(self.songs) - 1, min(POINTS, len(self.songs))).round().astype(int))
        places, share = project(self.shares[picked])
        songs = [self.songs[row] for row in picked]
        return {
            "rows": picked.tolist(),
            "x": places[:, 0].round(3).tolist(),
            "y": places[:, 1].round(3).tolist(),
            "genres": [song.genre for song in songs],
            "guesses": [song.best_guess for song in songs],
            "confidence": [round(song.confidence, 3) for song in songs],
            "names": [short(song.path) for song in songs],
            "spread": round(share, 3),
        }

    def find(self, text: str = "", genre: str = "", corrected: bool | None = None, order: str = "unsure") -> list[Song]:
        """Songs with all words of `text` in their paths, of a genre (corrected or told), in an order of ORDERS."""
        self.corrections.refresh()
        words = text.lower().split()
        of = self.corrections.of
        found = (
            song
            for song in self.songs
            if all(word in song.path.lower() for word in words)
            and (not genre or (of(song.path) or song.genre) == genre)
            and (corrected is None or corrected == (of(song.path) is not None))
        )
        return sorted(found, key=ORDERS[order])

    def audio(self, row: int) -> Path | None:
        """The file of a song, where it can be reached from here: audio by its name, on this machine."""
        name = original_path(self.songs[row].path)
        path = Path(name)
        return path if not store.is_remote(name) and path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() else None


ORDERS: dict[str, Callable[[Song], Any]] = {
    "unsure": lambda song: song.confidence,
    "sure": lambda song: -song.confidence,
    "path": lambda song: song.path.lower(),
    "genre": lambda song: (song.genre, -song.confidence),
}


class Corrections:
    """Genres by hand, by path, in a CSV: written whole with every change, and read anew when others have changed it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, str]] = {}
        self._columns = list(CORRECTIONS)
        self._seen: tuple[int, int] | None = None  # time of modification and size of what was read
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, path: str) -> str | None:
        """The genre that was given by hand, if any."""
        row = self._rows.get(path)
        return (row["genre"] or None) if row else None

    def put(self, path: str, genre: str | None, told: str) -> None:
        """Keep a genre, or, None, forget it. Raises OSError and LibraryError, and then nothing has changed."""
        with self._lock:
            self._read()
            rows = {name: row for name, row in self._rows.items() if name != path}
            if genre is not None:
                rows[path] = {**self._rows.get(path, {}), "track": path, "genre": genre, "told": told}
            write_text(self.path, self._text(rows))
            self._rows, self._seen = rows, self._stamp()

    def refresh(self) -> None:
        """Take in what others have changed. Raises LibraryError when the file can't be read."""
        with self._lock:
            self._read()

    def text(self) -> str:
        """The file's content: labels that `musicclass train` reads."""
        return self._text(self._rows)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size

    def _read(self) -> None:
        try:
            seen = self._stamp()
            if seen == self._seen:
                return
            rows, columns = {}, list(CORRECTIONS)
            if seen:
                with open(self.path, encoding="utf-8-sig", newline="") as file:
                    table = csv.DictReader(file, restval="")
                    columns = [*columns, *(name for name in table.fieldnames or () if name not in columns)]
                    rows = {row["track"]: {name: row.get(name, "") for name in columns} for row in table}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise LibraryError(
                f"{self.path}: can't be read as corrections ({error!r}); mend it, or move it away"
            ) from None
        self._rows, self._columns, self._seen = rows, columns, seen

    def _text(self, rows: dict[str, dict[str, str]]) -> str:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self._columns, restval="")
        table.writeheader()
        table.writerows(rows[path] for path in sorted(rows))
        return text.getvalue()


def project(shares: Array) -> tuple[Array, float]:
    """Probabilities (n, genres) -> places (n, 2) within -1 and 1, and the share of the variance that they show.

    Principal components of centred log-ratios (Aitchison 1982): the network's logits, as far as a table keeps them.
    """
    logs = np.log(np.maximum(shares, SMALL))
    ratios = logs - logs.mean(axis=1, keepdims=True)
    ratios -= ratios.mean(axis=0)
    variances, directions = np.linalg.eigh(ratios.T @ ratios)
    directions = directions[:, ::-1][:, :2]
    directions *= np.sign(
        directions[np.abs(directions).argmax(axis=0), [0, 1]]
    )  # eigenvectors have no sign of their own
    places = ratios @ directions
    share = float(variances[-2:].sum() / variances.sum()) if variances.sum() > 0 else 1.0
    return (places / max(float(np.abs(places).max()), 1e-9)).astype(np.float32), share


def short(path: str) -> str:
    """The last two parts of a path: mostly album and song."""
    return " / ".join(re.split(r"[\\/]", path)[-2:])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """A table's rows. Raises LibraryError for another ending, MissingExtraError, and whatever readers raise."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise LibraryError(f"{path}: its ending has to be one of {', '.join(READERS)}")
    yield from reader(path)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a track's segments are one field
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    require("pyarrow", "library")
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        names = [name for name in table.schema_arrow.names if name in COLUMNS or name.startswith("p_")]
        for batch in table.iter_batches(columns=names):
            yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterable[dict[str, Any]]]] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
