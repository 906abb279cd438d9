"""Similar songs: the nearest neighbours of a song's embedding in a library's table, by cosine similarity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musicclass.errors import LibraryError, import_optional
from musicclass.features import Array
from musicclass.tagger import normalize

SAME_RECORDING = 0.99  # cosine similarity; that of a song and its mp3 at 64 kbit/s is higher
COLUMNS = ("file", "genre", "duration", "embedding")


class Song(NamedTuple):
    """A similar song."""

    file: str
    genre: str  # the prediction, or "unknown"
    duration: float  # seconds
    similarity: float  # cosine, at most 1


class SongIndex:
    """The songs of a table that have embeddings."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows
        self._embeddings = normalize(np.array([row["embedding"] for row in rows], np.float32))

    @classmethod
    def load(cls, table: Path) -> SongIndex:
        """Read a table made with --embeddings. Raises LibraryError for another file."""
        try:
            rows = _read_parquet(table) if table.suffix.lower() == ".parquet" else _read_jsonl(table)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LibraryError(f"{table}: can't be read as a table of musicclass with embeddings ({error})") from None
        rows = [row for row in rows if row["embedding"] is not None]
        if not rows:
            raise LibraryError(f"{table}: has no embeddings; make it with musicclass library … --embeddings")
        return cls(rows)

    def embedding(self, file: str) -> Array | None:
        """The embedding (d,) of a file in the table."""
        for row in self._rows:
            if row["file"] == file:
                return np.array(row["embedding"], np.float32)
        return None

    def nearest(self, embedding: Array, top: int) -> list[Song]:
        """At most `top` songs, most similar first, without the recording of this `embedding` (d,); none twice."""
        similarity = self._embeddings @ normalize(embedding[None])[0]
        songs: list[Song] = []
        chosen: list[Array] = []
        for i in np.argsort(-similarity, kind="stable").tolist():
            if len(songs) == top:
                break
            vector = self._embeddings[i]
            if similarity[i] < SAME_RECORDING and all(vector @ other < SAME_RECORDING for other in chosen):
                row = self._rows[i]
                songs.append(Song(row["file"], row["genre"], row["duration"], float(similarity[i])))
                chosen.append(vector)
        return songs


def playlist(songs: Sequence[Song]) -> str:
    """The songs as an extended M3U playlist."""
    lines = ["#EXTM3U"]
    for song in songs:
        lines += [f"#EXTINF:{song.duration:.0f},{Path(song.file).stem}", song.file]
    return "\n".join(lines) + "\n"


def _read_parquet(table: Path) -> list[dict[str, Any]]:
    parquet = import_optional("pyarrow.parquet", "library")
    rows: list[dict[str, Any]] = parquet.read_table(table, columns=list(COLUMNS)).to_pylist()
    return rows


def _read_jsonl(table: Path) -> list[dict[str, Any]]:
    with table.open(encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        return [{name: row.get(name) for name in COLUMNS} for row in rows]
