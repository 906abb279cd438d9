"""A folder with one sub-folder per genre, with audio files at any depth below it."""

from __future__ import annotations

from pathlib import Path

from musicclass.audio_files import iter_audio_files
from musicclass.datasets import Dataset, Track
from musicclass.datasets.cache import audio_hash, cached_features
from musicclass.datasets.label_csv import check_two_genres, read_artists
from musicclass.errors import DatasetError


def read(root: Path, artists: Path | None = None) -> Dataset:
    """Open a folder of genres; track ids are paths below `root`, such as `jazz/So What.flac`.

    Raises DatasetError for fewer than two genres, or an `artists` CSV (track, artist) that can't be read.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder; give one with a sub-folder per genre")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    paths = {
        Path(name).relative_to(root).as_posix(): Path(name)
        for genre in folders
        for name in sorted(iter_audio_files(str(genre)))
        if Path(name).is_file()
    }
    empty = [genre.name for genre in folders if not any(name.startswith(f"{genre.name}/") for name in paths)]
    if len(folders) - len(empty) < 2:
        raise DatasetError(f"{root}: needs at least two genres with audio, {_found(folders, empty)}")
    known, warnings = read_artists(artists, paths)
    if empty:
        warnings = (*warnings, f"no audio files, so no genre: {', '.join(empty)}")
    tracks = tuple(
        Track(name, name.split("/")[0], known.get(name, ""), audio_hash(path), path) for name, path in paths.items()
    )
    return check_two_genres(Dataset(root.resolve().name, tracks, cached_features, warnings), root)


def _found(folders: list[Path], empty: list[str]) -> str:
    """What a folder without genres has, with the sub-folder that seems to be meant."""
    for folder in folders:
        genres = [path for path in folder.iterdir() if path.is_dir() and next(iter_audio_files(str(path)), "")]
        if len(genres) > 1:
            return f"but its sub-folder {folder} has {len(genres)}: give that one"
    return f"has {', '.join(path.name for path in folders if path.name not in empty) or 'none'}"
