"""A table written by `musicclass library`, in memory, with the user's corrections."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.errors import LibraryError
from musicclass.library.corrections import Corrections
from musicclass.library.map import log_ratios, principal_components
from musicclass.library.read_table import CREATE_HINT, naming_table, read_rows
from musicclass.library.results import Row
from musicclass.library.similar import Song, SongIndex
from musicclass.prediction import UNKNOWN
from musicclass.workers import OK

IntArray = npt.NDArray[np.int_]
MAX_CODES = 255  # names that a byte of the map can stand for; 255 itself: another, or none


@dataclass(frozen=True)
class LibraryTrack:
    """A row of the table that has a genre."""

    row: int
    path: str
    name: str  # artist and title, or the end of the path
    genre: str  # the prediction
    top_genre: str
    confidence: float
    duration: float
    tags: str = ""  # separated by commas
    genre_tag: str = ""  # the genre in the file's tags, if the table has that column
    year: int = 0  # 0: unknown, or the table has no such column
    correction: str | None = None  # the genre according to the user


@dataclass(frozen=True, kw_only=True)
class SimilarTrack(LibraryTrack):
    """A track that is similar to another."""

    similarity: float  # cosine of the embeddings, at most 1


ORDERS: dict[str, Callable[[LibraryTrack], Any]] = {
    "least_confident": lambda track: track.confidence,
    "most_confident": lambda track: -track.confidence,
    "path": lambda track: track.path.lower(),
    "genre": lambda track: (track.genre, -track.confidence),
}


class _Content:
    """The table's rows at one time."""

    def __init__(self, path: Path):
        self.failed: Counter[str] = Counter()  # files without a genre, by status
        self.genres: list[str] = []
        self.tracks: list[LibraryTrack] = []
        rows = []
        for row in read_rows(path):
            if not row["status"]:
                raise ValueError("a row has no status")
            if row["status"] != OK:
                self.failed[str(row["status"])] += 1
                continue
            self.genres = self.genres or [name.removeprefix("prob_") for name in row if name.startswith("prob_")]
            rows.append(self._add(row))
        self.index = SongIndex(song for song, _, _ in rows)
        self.row_of = {track.path: track.row for track in self.tracks}
        self.texts = [f"{track.path}\n{track.name}\n{track.tags}".lower() for track in self.tracks]
        self.orders = {
            name: np.array([t.row for t in sorted(self.tracks, key=key)], int) for name, key in ORDERS.items()
        }
        positions = np.array([position for _, position, _ in rows], np.float32).reshape(-1, 2)
        if not np.isfinite(positions).all():  # the table of an earlier version
            ratios = log_ratios(np.array([probabilities for *_, probabilities in rows], np.float32))
            positions = principal_components(ratios)
        self.positions = positions

    def _add(self, row: Row) -> tuple[Row, list[float], list[float]]:
        """Append a track; returns its row of the index, its position in the map, and its probabilities."""
        path, genre, top_genre = (str(row[name]) for name in ("file", "genre", "top_genre"))
        columns = ("confidence", "duration", *(f"prob_{genre}" for genre in self.genres))
        confidence, duration, *probabilities = numbers = [float(row[name]) for name in columns]
        if not np.isfinite(numbers).all():
            raise ValueError(f"{path} has numbers that aren't finite")
        tags, genre_tag, artist, title = (str(row.get(name) or "") for name in ("tags", "genre_tag", "artist", "title"))
        name = " – ".join(filter(None, (artist, title))) if title else short_name(path)
        year = int(re.sub(r"\D", "", str(row.get("year") or ""))[:4] or 0)
        self.tracks.append(LibraryTrack(
            len(self.tracks), path, name, genre, top_genre, confidence, duration, tags, genre_tag, year,
        ))  # fmt: skip
        song = {"file": path, "genre": genre, "duration": duration, "embedding": row["embedding"]}
        return song, [_number(row.get(name)) for name in ("map_x", "map_y")], probabilities


class LibraryTable:
    """A library's table. Raises LibraryError for a file that can't be read as one."""

    def __init__(self, path: Path):
        self.path = path
        self.corrections = Corrections(path)
        self._lock = threading.Lock()
        self._load()
        self.corrections.read()

    def _load(self) -> None:
        with naming_table(self.path):
            status = self.path.stat()
            revision = f"{status.st_mtime_ns:x}-{status.st_size:x}"
            content = _Content(self.path)
        if not content.tracks:
            raise LibraryError(f"{self.path}: none of its files has a genre; classify some: {CREATE_HINT}")
        self._content, self.revision = content, revision

    def refresh(self) -> None:
        """Read the table again if it has changed; while that takes, and when it can't be read, the old one stays."""
        with contextlib.suppress(OSError, LibraryError):
            status = self.path.stat()
            if self.revision == f"{status.st_mtime_ns:x}-{status.st_size:x}" or not self._lock.acquire(blocking=False):
                return
            try:
                self._load()
            finally:
                self._lock.release()

    @property
    def failed(self) -> dict[str, int]:
        """The number of files without a genre, by status."""
        return self._content.failed

    @property
    def genres(self) -> list[str]:
        """The model's genres."""
        return self._content.genres

    @property
    def index(self) -> SongIndex:
        """The songs by their embeddings."""
        return self._content.index

    def __len__(self) -> int:
        return len(self._content.tracks)

    def tracks(self, rows: Iterable[int] | None = None) -> list[LibraryTrack]:
        """The tracks of `rows`, or all, with their corrections. Raises LibraryError when these can't be read."""
        corrections, tracks = self.corrections.read(), self._content.tracks
        return [
            replace(track, correction=corrections[track.path]) if track.path in corrections else track
            for track in (tracks if rows is None else (tracks[row] for row in rows))
        ]

    def similar(self, songs: Sequence[Song]) -> list[SimilarTrack]:
        """The tracks that `index` has found, if they are still there. Raises LibraryError as `tracks` does."""
        row_of = self._content.row_of
        songs = [song for song in songs if song.file in row_of]
        tracks = self.tracks(row_of[song.file] for song in songs)
        return [
            SimilarTrack(**vars(track), similarity=song.similarity) for track, song in zip(tracks, songs, strict=True)
        ]

    def _labels(self) -> tuple[list[str], list[int]]:
        """The genre of each track, corrected or predicted, and the rows of corrected tracks."""
        content = self._content
        labels, corrected = [track.genre for track in content.tracks], []
        for path, genre in self.corrections.read().items():
            if (row := content.row_of.get(path)) is not None:
                labels[row] = genre
                corrected.append(row)
        return labels, corrected

    def counts(self) -> dict[str, int]:
        """The number of tracks of each genre, corrected or predicted; the most frequent first."""
        return dict(Counter(self._labels()[0]).most_common())

    def map(self) -> bytes:
        """All tracks in the plane: the length of a header (uint32), the header, and columns of all rows.

        The header is JSON: `songs`, `revision`, and the names for which the bytes of genres and tags stand. Columns,
        little-endian: positions (float32, x and y of each row), years (uint16; 0: unknown), genres, confidences
        (255: 1) and first tags (uint8; 255: another, or none).
        """
        tracks, (labels, _) = self._content.tracks, self._labels()
        genres, genre_codes = _encode(labels)
        tags, tag_codes = _encode([track.tags.partition(",")[0] for track in tracks])
        header = {"songs": len(tracks), "revision": self.revision, "genres": genres, "tags": tags}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        years = np.array([track.year for track in tracks], "<u2")
        confidence = np.array([track.confidence for track in tracks])
        columns = (
            self._content.positions.astype("<f4"), years, genre_codes, (255 * confidence).astype(np.uint8), tag_codes
        )  # fmt: skip
        return len(text).to_bytes(4, "little") + text + b"".join(column.tobytes() for column in columns)

    def find(
        self,
        text: str = "",
        genre: str = "",
        corrected: bool | None = None,
        disagreeing: bool = False,
        order: str = "least_confident",
    ) -> IntArray:
        """The rows of a genre (corrected or predicted) whose path, name and tags contain all words of `text`.

        Only corrected ones, or only others; only those whose genre isn't in the tags of their files; in one of ORDERS.
        """
        content, (labels, corrected_rows) = self._content, self._labels()
        chosen = np.ones(len(content.tracks), bool)
        for word in text.lower().split():
            chosen &= [word in each for each in content.texts]
        if genre:
            chosen &= [label == genre for label in labels]
        if corrected is not None:
            chosen[corrected_rows if not corrected else np.setdiff1d(np.arange(len(chosen)), corrected_rows)] = False
        if disagreeing:
            chosen &= [_disagree(label, track.genre_tag) for label, track in zip(labels, content.tracks, strict=True)]
        order_rows = content.orders[order]
        rows: IntArray = order_rows[chosen[order_rows]]
        return rows


def _number(value: Any) -> float:
    return float("nan" if value in (None, "") else value)


def _encode(names: list[str]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """The names, most frequent first, and the number of each."""
    different = [name for name, _ in Counter(filter(None, names)).most_common(MAX_CODES)]
    codes = {name: code for code, name in enumerate(different)}
    return different, np.array([codes.get(name, MAX_CODES) for name in names], np.uint8)


def _disagree(genre: str, genre_tag: str) -> bool:
    """Whether a file has a genre tag without `genre`: "rock" is one of "Rock", "Progressive Rock; Pop"."""
    return bool(genre_tag) and genre != UNKNOWN and _letters(genre) not in _letters(genre_tag)


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text.lower())


def short_name(path: str) -> str:
    """The last two parts of a path: usually album and song."""
    return " / ".join(re.split(r"[\\/]", path)[-2:])
