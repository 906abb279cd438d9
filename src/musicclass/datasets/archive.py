"""Log-mel features of many tracks in one .npz file, without their audio.

Citation    none: `musicclass features DIR -o genres.npz` makes one of any data set
Index       ids, genres, artists, contents (n_tracks,); artist and content may be ""
Features    log_mel (sum of n_frames, n_bands), float16, dB; n_frames (n_tracks,)
            settings: the log-mel part of FeatureConfig, as JSON
Licence     that of the music: features of copyrighted music are for one's own use
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.config import FeatureConfig
from musicclass.datasets import Dataset, Track
from musicclass.errors import DatasetError
from musicclass.features import Array
from musicclass.files import write_atomically

TEXTS = ("ids", "genres", "artists", "contents")


def write(path: Path, items: Iterable[tuple[Track, Array]], config: FeatureConfig) -> int:
    """Write tracks and their log-mel frames (n_frames, n_bands) as an archive; returns how many.

    Raises DatasetError when there is none, or `path` is taken.
    """
    if path.exists():
        raise DatasetError(f"{path} exists; give another name, or delete it first")
    tracks, frames = [], []
    for track, log_mel in items:
        tracks.append(track)
        frames.append(log_mel.astype(np.float16))
    if not tracks:
        raise DatasetError(f"no track left to write into {path}")
    arrays: dict[str, Any] = {
        "settings": json.dumps(config.log_mel_settings()),
        "ids": [track.id for track in tracks],
        "genres": [track.genre for track in tracks],
        "artists": [track.artist for track in tracks],
        "contents": [track.content for track in tracks],
        "n_frames": [len(item) for item in frames],
        "log_mel": np.concatenate(frames),
    }
    with write_atomically(path) as file:
        np.savez_compressed(file, **arrays)
    return len(tracks)


def read(path: Path) -> Dataset:
    """Open an archive. Raises DatasetError when it isn't one, or its parts don't fit together."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*TEXTS, "n_frames", "log_mel", "settings")}
            settings = json.loads(str(arrays["settings"]))
            n_bands = settings["n_bands"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: not an archive of musicclass ({error}); `musicclass features` makes one of audio, "
            "scripts/convert_logmel.py of log-mel pictures"
        ) from None
    n_frames, log_mel = arrays["n_frames"], arrays["log_mel"]
    ids = [str(item) for item in arrays["ids"]]
    if len({len(arrays[name]) for name in (*TEXTS, "n_frames")}) != 1 or n_frames.sum() != len(log_mel):
        raise DatasetError(f"{path}: damaged: its parts differ in length; make it anew")
    if len(set(ids)) != len(ids):
        raise DatasetError(f"{path}: a track stands in it twice; make it anew")
    if log_mel.ndim != 2 or log_mel.shape[1] != n_bands:
        raise DatasetError(f"{path}: damaged: log_mel has shape {log_mel.shape}; make it anew")
    genres, artists, contents = ([str(value) for value in arrays[name]] for name in TEXTS[1:])
    tracks = tuple(Track(*row) for row in zip(ids, genres, artists, contents, strict=True))
    rows = dict(zip(ids, np.split(log_mel, np.cumsum(n_frames)[:-1]), strict=True))

    def frames_of(track: Track, config: FeatureConfig) -> Array:
        odd = {k: v for k, v in config.log_mel_settings().items() if settings.get(k) != v}
        if config.n_bands < n_bands:  # the lowest of them will do
            odd.pop("n_bands")
        if odd:
            raise DatasetError(
                f"{path} was made with other features (asked for: {odd}; there: "
                f"{ {k: settings.get(k) for k in odd} }); make one that fits, or use those settings"
            )
        found: Array = rows[track.id][:, : config.n_bands].astype(np.float32)
        return found

    return Dataset(path.stem, tracks, frames_of)
