"""CSV files about tracks: labels (a data set), artists and splits.

A labels CSV has the columns `track` (a path, absolute or relative to the CSV's folder), `genre` and, optionally,
`artist`, `source` (the collection) and `confidence` (high, medium or low: of the genre). The audio files may be
anywhere. Columns are separated by commas, semicolons or tabs; text is UTF-8, UTF-16 with a mark, or else Windows-1252.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection
from pathlib import Path

from musicclass.audio_files import unescape_path
from musicclass.datasets import CONFIDENCES, Dataset, Track, check_genres
from musicclass.datasets.cache import audio_hash, cached_features
from musicclass.errors import DatasetError


def read(path: Path, artists: Path | None = None) -> Dataset:
    """Open a labels CSV, such as the corrections of `musicclass serve --library`; track ids are its paths.

    Raises DatasetError when a CSV can't be read or lacks a column, or there are fewer than two genres.
    """
    genres = {name: genre for name, genre in sorted(read_column(path, "genre").items()) if genre}
    known, warnings = read_artists(artists, genres) if artists else (read_column(path, "artist", optional=True), ())
    paths = {name: _locate(path.parent, name) for name in genres}
    sources, grades = (read_column(path, column, optional=True) for column in ("source", "confidence"))
    if invalid := sorted(set(grades.values()) - {*CONFIDENCES, ""}):
        raise DatasetError(f"{path}: unknown confidence {invalid[0]!r}; use {', '.join(CONFIDENCES)}")
    tracks = (
        Track(*item, audio_hash(file), file, sources.get(name, ""), grades.get(name, ""))
        for name, file in paths.items()
        for item in [(name, genres[name], known.get(name, ""))]
    )
    return check_two_genres(Dataset(path.stem, tuple(tracks), cached_features, warnings), path)


def check_two_genres(dataset: Dataset, path: Path) -> Dataset:
    """The data set with its genres in one spelling. Raises DatasetError when it has fewer than two."""
    dataset = check_genres(dataset)
    if len(dataset.genres) < 2:
        present = ", ".join(dataset.genres) or "none"
        raise DatasetError(f"{path}: needs at least two genres with audio, has {present}")
    return dataset


def _locate(folder: Path, name: str) -> Path:
    """The file of a track, whose path may be of Windows."""
    path = folder / unescape_path(name)
    return path if path.exists() or "\\" not in name else folder / name.replace("\\", "/")


def read_column(path: Path, column: str, optional: bool = False) -> dict[str, str]:
    """Track -> value of `column` in the CSV at `path`; empty where an `optional` column is missing.

    Raises DatasetError when the file can't be read, lacks the column, or has two values for one track.
    """
    try:
        text = _decode(path.read_bytes())
        header = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
        names = [name.strip().lower() for name in next(reader, [])]
        table = [dict(zip(names, row, strict=False)) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path}: can't be read: {error}") from None
    if optional and column not in names:
        return {}
    for needed in ("track", column):
        if needed not in names:
            present = ", ".join(filter(None, names)) or "none"
            raise DatasetError(f"{path}: has no column {needed!r}, but: {present}; it needs: track,{column}")
    values: dict[str, str] = {}
    for row in table:
        track, value = (row.get(name, "").strip() for name in ("track", column))
        if track and values.setdefault(track, value) != value:  # spreadsheets write empty rows
            raise DatasetError(f"{path}: {track} has two values of {column}, {values[track]} and {value}; keep one")
    return values


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("it isn't text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # as Excel writes CSV files
        return content.decode("cp1252", errors="replace")


def match_track_names(values: dict[str, str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The `values` of those tracks that are in `names`, under these names, and the other tracks, sorted.

    Names match in either Unicode normalization, and with slashes or backslashes: CSV files have all of these.
    """
    normalized = {_normalize(name): name for name in names}
    exact = {track: track for track in values if track in names}
    matches = {track: exact.get(track) or normalized.get(_normalize(track)) for track in values}
    unmatched = sorted(track for track, name in matches.items() if name is None)
    return {name: values[track] for track, name in matches.items() if name is not None}, unmatched


def _normalize(track: str) -> str:
    return unicodedata.normalize("NFC", track.replace("\\", "/"))


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
