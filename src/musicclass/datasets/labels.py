"""A CSV of labels: any audio files, wherever they lie, with their genres.

Citation    none
Index       the CSV's columns `track` (a path; relative ones from the CSV's folder), `genre` and, optional, `artist`
Remotes     none
Licence     that of the music
"""

from __future__ import annotations

from pathlib import Path

from musicclass.datasets import Dataset, Track
from musicclass.datasets.folder import artists_of, cached_log_mel, hash_if_readable, read_column
from musicclass.errors import DatasetError
from musicclass.library.writers import original_path


def read(path: Path, artists: Path | None = None) -> Dataset:
    """Open a CSV of labels, such as the corrections of `musicclass serve --library`; track ids are as it gives them.

    Raises DatasetError when it can't be read, lacks a column or has less than two genres.
    """
    genres = read_column(path, "genre")
    known, notes = artists_of(artists, genres) if artists else (read_column(path, "artist", optional=True), ())
    tracks = []
    for name, genre in sorted(genres.items()):
        if genre:
            file = path.parent / original_path(name)
            tracks.append(Track(name, genre, known.get(name, ""), hash_if_readable(file), file))
    dataset = Dataset(path.stem, tuple(tracks), cached_log_mel, notes)
    if len(dataset.genres) < 2:
        found = ", ".join(dataset.genres) or "none"
        raise DatasetError(f"{path}: needs at least two genres, with a track each; found {found}")
    return dataset
