"""Anyone's own genres: one sub-folder per genre, with audio files at any depth below it.

Citation    none
Index       the names of the sub-folders; artists, where wanted, from a CSV (track, artist)
Remotes     none
Licence     that of the music
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import unicodedata
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np

from musicclass.audio import stream_for
from musicclass.config import FeatureConfig
from musicclass.datasets import AUDIO_SUFFIXES, Dataset, Track
from musicclass.errors import DatasetError, DecodeError
from musicclass.features import Array, log_mel_of_blocks
from musicclass.files import file_hash, write_atomically

FEATURES = 1  # of the cache; counts up when the same settings give other features


def read(root: Path, artists: Path | None = None) -> Dataset:
    """Open a folder of genres; track ids are paths below `root`, such as `jazz/So What.flac`.

    Raises DatasetError for less than two genres, or an `artists` CSV that can't be read.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder")
    paths = {}
    for path in sorted(root.glob("*/**/*")):
        parts = path.relative_to(root).parts
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not any(p.startswith(".") for p in parts):
            paths["/".join(parts)] = path
    known, notes = artists_of(artists, paths)
    tracks = [
        Track(name, name.split("/")[0], known.get(name, ""), hash_if_readable(path), path)
        for name, path in paths.items()
    ]
    dataset = Dataset(root.resolve().name, tuple(tracks), cached_log_mel, notes)
    if len(dataset.genres) < 2:
        raise DatasetError(
            f"{root}: needs one sub-folder per genre, and at least two with audio in them; "
            f"found {', '.join(dataset.genres) or 'none'}"
        )
    return dataset


def read_column(path: Path, column: str, optional: bool = False) -> dict[str, str]:
    """The CSV at `path` as track -> value of `column`; an `optional` column may be missing.

    Raises DatasetError when the file can't be read, lacks the column, or has a track twice, differently.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if optional and column not in (reader.fieldnames or ()):
                return {}
            rows = [((row["track"] or "").strip(), (row[column] or "").strip()) for row in reader]
            rows = [row for row in rows if row[0]]  # spreadsheets write empty ones
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: can't be read: {error}") from None
    except KeyError as error:
        raise DatasetError(f"{path}: has no column {error}; it needs: track,{column}") from None
    table: dict[str, str] = {}
    for track, value in rows:
        if table.setdefault(track, value) != value:
            raise DatasetError(f"{path}: {track} stands in it twice, as {table[track]} and as {value}")
    return table


def matched(table: dict[str, str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """What a `table` of tracks holds for those of the `names` that stand in it, and its tracks that are none of these.

    An accent may be a letter's own or a character after it: file systems and CSV files write either.
    """
    found = {name: table[name] for name in names if name in table}
    left = {unicodedata.normalize("NFC", name): name for name in names if name not in found}
    strangers = []
    for track in table.keys() - found.keys():
        if name := left.get(unicodedata.normalize("NFC", track)):
            found[name] = table[track]
        else:
            strangers.append(track)
    return found, sorted(strangers)


def artists_of(path: Path | None, names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Track -> artist, from the CSV at `path` where there is one, and a note on tracks in it that are none of `names`.

    Raises DatasetError when it can't be read.
    """
    table = read_column(path, "artist") if path else {}
    known, strangers = matched(table, names)
    if not strangers:
        return known, ()
    return known, (f"{path}: {len(strangers)} of its {len(table)} tracks are not here, such as {strangers[0]}",)


def hash_if_readable(path: Path) -> str:
    """`file_hash`, or "" for a file that can't be read."""
    try:
        return file_hash(path)
    except OSError:  # it will be left out, with a warning, when its features are asked for
        return ""


def cache_folder() -> Path:
    """Where features are kept: $MUSICCLASS_CACHE, or the user's cache folder."""
    own = os.environ.get("MUSICCLASS_CACHE")
    shared = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(shared) / "musicclass"


def cached_log_mel(track: Track, config: FeatureConfig) -> Array:
    """The log-mel frames of the track's file, in dB (n_frames, n_bands), computed once for the same bytes and settings.

    Raises AudioError when the file can't be used.
    """
    assert track.path is not None
    settings = json.dumps(config.log_mel_settings(), sort_keys=True)
    try:
        content = file_hash(track.path)
    except OSError as error:
        raise DecodeError(f"{track.path}: can't be read ({error}); check its permissions and the disk") from None
    key = hashlib.sha256(f"{FEATURES} {content} {settings}".encode()).hexdigest()
    stored = cache_folder() / "features" / key[:2] / f"{key}.npy"
    try:
        cached: Array = np.load(stored, allow_pickle=False)
        return cached
    except (OSError, ValueError, EOFError):
        frames = log_mel_of_blocks(stream_for(track.path, config), config)
        try:
            with write_atomically(stored) as file:
                np.save(file, frames)
        except OSError as error:
            why = error.strerror or error
            told = f"{cache_folder()}: features can't be kept ({why}); set MUSICCLASS_CACHE to another folder"
            warnings.warn(told, stacklevel=2)
        return frames
