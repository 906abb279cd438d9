"""A table written by `musicclass library`, in memory, with the user's corrections."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.errors import LibraryError
from musicclass.library.corrections import Corrections
from musicclass.library.map import log_ratios, principal_components
from musicclass.library.read_table import CREATE_HINT, naming_table, read_columns
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


class _Content:
    """The table's rows at one time, by column."""

    def __init__(self, path: Path):
        columns = read_columns(path)
        if not all(columns["status"]):
            raise ValueError("a row has no status")
        done = columns["status"] == OK
        self.failed = Counter(map(str, columns["status"][~done]))  # files without a genre, by status
        self.index = SongIndex(columns)
        columns = {name: column[done] for name, column in columns.items() if name != "embedding"}
        probabilities = [name for name in columns if name.startswith("prob_")]
        self.model_genres = [name.removeprefix("prob_") for name in probabilities]
        self.files, self.genres, top_genres = (_texts(columns[name]) for name in ("file", "genre", "top_genre"))
        nothing = np.full(len(self.files), None)
        self.tags, self.genre_tags, artists, titles, years = (
            _texts(columns.get(name, nothing)) for name in ("tags", "genre_tag", "artist", "title", "year")
        )
        numbers = np.stack([_numbers(columns[name]) for name in ("confidence", "duration", *probabilities)], axis=1)
        for row in np.flatnonzero(~np.isfinite(numbers).all(axis=1)):
            raise ValueError(f"{self.files[row]} has numbers that aren't finite")
        self.confidences = numbers[:, 0]
        year_of = {text: int(re.sub(r"\D", "", text)[:4] or 0) for text in set(years)}
        self.years = [year_of[text] for text in years]
        self.names = list(map(_name, self.files, artists, titles))
        self._fields: tuple[list[Any], ...] = (  # of LibraryTrack, from the second to the second last
            self.files, self.names, self.genres, top_genres, self.confidences.tolist(), numbers[:, 1].tolist(),
            self.tags, self.genre_tags, self.years,
        )  # fmt: skip
        self.row_of = {file: row for row, file in enumerate(self.files)}
        positions: npt.NDArray[Any] = np.stack(
            [_numbers(columns.get(name, nothing)) for name in ("map_x", "map_y")], axis=1
        )
        if not np.isfinite(positions).all():  # the table of an earlier version
            positions = principal_components(log_ratios(numbers[:, 2:].astype(np.float32)))
        self.positions = positions.astype(np.float32)
        self._orders: dict[str, IntArray] = {}

    def __len__(self) -> int:
        return len(self.files)

    def track(self, row: int, corrections: dict[str, str]) -> LibraryTrack:
        """A row, with its correction."""
        values = [int(row), *(field[row] for field in self._fields), corrections.get(self.files[row])]
        return LibraryTrack(*values)

    @functools.cached_property
    def texts(self) -> list[str]:
        """What is searched in each row."""
        return ["\n".join(each).lower() for each in zip(self.files, self.names, self.tags, strict=True)]

    def order(self, name: str) -> IntArray:
        """All rows, in one of ORDERS."""
        if name not in self._orders:
            self._orders[name] = ORDERS[name](self)
        return self._orders[name]


ORDERS: dict[str, Callable[[_Content], IntArray]] = {
    "least_confident": lambda content: np.argsort(content.confidences, kind="stable"),
    "most_confident": lambda content: np.argsort(-content.confidences, kind="stable"),
    "path": lambda content: np.array(
        sorted(range(len(content)), key=[file.lower() for file in content.files].__getitem__)
    ),
    "genre": lambda content: np.lexsort((-content.confidences, np.array(content.genres))),
}


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
        if not content:
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
        return self._content.model_genres

    @property
    def index(self) -> SongIndex:
        """The songs by their embeddings."""
        return self._content.index

    @property
    def tagged(self) -> int:
        """The number of files that have a genre in their tags."""
        return sum(map(bool, self._content.genre_tags))

    def __len__(self) -> int:
        return len(self._content)

    def tracks(self, rows: Iterable[int] | None = None) -> list[LibraryTrack]:
        """The tracks of `rows`, or all, with their corrections. Raises LibraryError when these can't be read."""
        corrections, content = self.corrections.read(), self._content
        return [content.track(row, corrections) for row in (range(len(content)) if rows is None else rows)]

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
        labels, corrected = content.genres.copy(), []
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
        content, (labels, _) = self._content, self._labels()
        genres, genre_codes = _encode(labels)
        tags, tag_codes = _encode([text.partition(",")[0] for text in content.tags])
        header = {"songs": len(content), "revision": self.revision, "genres": genres, "tags": tags}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        columns = (
            content.positions.astype("<f4"), np.array(content.years, "<u2"), genre_codes,
            (255 * content.confidences).astype(np.uint8), tag_codes,
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
        chosen = np.ones(len(content), bool)
        for word in text.lower().split():
            chosen &= [word in each for each in content.texts]
        if genre:
            chosen &= [label == genre for label in labels]
        if corrected is not None:
            chosen[corrected_rows if not corrected else np.setdiff1d(np.arange(len(chosen)), corrected_rows)] = False
        if disagreeing:
            chosen &= list(map(_disagree, labels, content.genre_tags))
        order_rows = content.order(order)
        rows: IntArray = order_rows[chosen[order_rows]]
        return rows


def _texts(column: npt.NDArray[Any]) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in column.tolist()]


def _numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if column.dtype == object:
        column = np.array([float("nan" if value in (None, "") else value) for value in column])
    return column.astype(float)


def _name(path: str, artist: str, title: str) -> str:
    return " – ".join(filter(None, (artist, title))) if title else short_name(path)


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
