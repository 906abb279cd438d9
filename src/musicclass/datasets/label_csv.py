"""CSV files about tracks: labels (a data set), artists and splits.

A labels CSV has the columns `track` (a path, absolute or relative to the CSV's folder), `genre` and, optionally,
`artist`, `source` (the collection) and `confidence` (high, medium or low: of the genre). The audio files may be
anywhere.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection
from pathlib import Path

from musicclass.audio_files import unescape_path
from musicclass.datasets import CONFIDENCES, Dataset, Track
from musicclass.datasets.cache import audio_hash, cached_features
from musicclass.errors import DatasetError


def read(path: Path, artists: Path | None = None) -> Dataset:
    """Open a labels CSV, such as the corrections of `musicclass serve --library`; track ids are its paths.

    Raises DatasetError when a CSV can't be read or lacks a column, or there are fewer than two genres.
    """
    genres = {name: genre for name, genre in sorted(read_column(path, "genre").items()) if genre}
    known, warnings = read_artists(artists, genres) if artists else (read_column(path, "artist", optional=True), ())
    paths = {name: path.parent / unescape_path(name) for name in genres}
    sources, grades = (read_column(path, column, optional=True) for column in ("source", "confidence"))
    if invalid := sorted(set(grades.values()) - {*CONFIDENCES, ""}):
        raise DatasetError(f"{path}: unknown confidence {invalid[0]!r}; use {', '.join(CONFIDENCES)}")
    tracks = (
        Track(*item, audio_hash(file), file, sources.get(name, ""), grades.get(name, ""))
        for name, file in paths.items()
        for item in [(name, genres[name], known.get(name, ""))]
    )
    return check_genres(Dataset(path.stem, tuple(tracks), cached_features, warnings), path)


def check_genres(dataset: Dataset, path: Path) -> Dataset:
    """The data set itself. Raises DatasetError when it has fewer than two genres."""
    if len(dataset.genres) < 2:
        present = ", ".join(dataset.genres) or "none"
        raise DatasetError(f"{path}: needs at least two genres with audio, has {present}")
    return dataset


def read_column(path: Path, column: str, optional: bool = False) -> dict[str, str]:
    """Track -> value of `column` in the CSV at `path`; empty where an `optional` column is missing.

    Raises DatasetError when the file can't be read, lacks the column, or has two values for one track.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if optional and column not in (reader.fieldnames or ()):
                return {}
            rows = [((row["track"] or "").strip(), (row[column] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: can't be read: {error}") from None
    except KeyError as error:
        raise DatasetError(f"{path}: has no column {error}; it needs: track,{column}") from None
    values: dict[str, str] = {}
    for track, value in rows:
        if track and values.setdefault(track, value) != value:  # spreadsheets write empty rows
            raise DatasetError(f"{path}: {track} has two values of {column}, {values[track]} and {value}; keep one")
    return values


def match_track_names(values: dict[str, str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The `values` of those tracks that are in `names`, under these names, and the other tracks, sorted.

    Names match in either Unicode normalization: file systems and CSV files write accents in both.
    """
    normalized = {unicodedata.normalize("NFC", name): name for name in names}
    exact = {track: track for track in values if track in names}
    matches = {track: exact.get(track) or normalized.get(unicodedata.normalize("NFC", track)) for track in values}
    unmatched = sorted(track for track, name in matches.items() if name is None)
    return {name: values[track] for track, name in matches.items() if name is not None}, unmatched


def read_artists(path: Path | None, names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Track -> artist, for those of `names` that the CSV at `path` has, and a warning about its other tracks.

    Raises DatasetError when it can't be read.
    """
    values = read_column(path, "artist") if path else {}
    known, unmatched = match_track_names(values, names)
    if not unmatched:
        return known, ()
    example = unmatched[0]
    return known, (f"{path}: {len(unmatched)} of its {len(values)} tracks are not in the data set, such as {example}",)
