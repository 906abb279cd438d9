"""A folder with one sub-folder per genre, with audio files at any depth below it."""

from __future__ import annotations

from pathlib import Path

from musicclass.audio_files import AUDIO_SUFFIXES
from musicclass.datasets import Dataset, Track
from musicclass.datasets.cache import audio_hash, cached_features
from musicclass.datasets.label_csv import check_genres, read_artists
from musicclass.errors import DatasetError


def read(root: Path, artists: Path | None = None) -> Dataset:
    """Open a folder of genres; track ids are paths below `root`, such as `jazz/So What.flac`.

    Raises DatasetError for fewer than two genres, or an `artists` CSV (track, artist) that can't be read.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder; give one with a sub-folder per genre")
    paths = {}
    for path in sorted(root.glob("*/**/*")):
        parts = path.relative_to(root).parts
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not any(p.startswith(".") for p in parts):
            paths["/".join(parts)] = path
    known, warnings = read_artists(artists, paths)
    tracks = tuple(
        Track(name, name.split("/")[0], known.get(name, ""), audio_hash(path), path) for name, path in paths.items()
    )
    return check_genres(Dataset(root.resolve().name, tracks, cached_features, warnings), root)
