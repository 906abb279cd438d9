"""Log-mel features of many tracks in one .npz file, without their audio: written by `musicclass extract-features`.

ids, genres, artists, audio_hashes  (n_tracks,); artists and audio_hashes may be ""
log_mel                             (sum of n_frames, n_mels_kept), float16, dB
n_frames                            (n_tracks,)
settings                            the log-mel part of FeatureConfig, as JSON
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

TEXTS = {"ids": "id", "genres": "genre", "artists": "artist", "audio_hashes": "audio_hash"}  # array -> Track's field


def write(path: Path, items: Iterable[tuple[Track, Array]], config: FeatureConfig) -> int:
    """Write tracks and their log-mel frames (n_frames, n_mels_kept) as an archive; returns the number of tracks.

    Raises DatasetError when there are no tracks, or `path` exists.
    """
    if path.exists():
        raise DatasetError(f"{path} exists; give another name, or delete it first")
    tracks, frames = [], []
    for track, log_mel in items:
        tracks.append(track)
        frames.append(log_mel.astype(np.float16))
    if not tracks:
        raise DatasetError(f"no tracks left to write into {path}; see the warnings for why they were skipped")
    arrays: dict[str, Any] = {
        "settings": json.dumps(config.log_mel_settings()),
        **{name: [getattr(track, field) for track in tracks] for name, field in TEXTS.items()},
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
            raise ValueError("not an .npz file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*TEXTS, "n_frames", "log_mel", "settings")}
            settings = json.loads(str(arrays["settings"]))
            n_mels_kept = settings["n_mels_kept"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: not an archive of musicclass ({error}); create one with `musicclass "
            "extract-features` from audio, or scripts/convert_logmel.py from log-mel spectrograms"
        ) from None
    n_frames, log_mel = arrays["n_frames"], arrays["log_mel"]
    ids = [str(item) for item in arrays["ids"]]
    if len({len(arrays[name]) for name in (*TEXTS, "n_frames")}) != 1 or n_frames.sum() != len(log_mel):
        raise DatasetError(f"{path}: damaged: its arrays differ in length; create it anew")
    if len(set(ids)) != len(ids):
        raise DatasetError(f"{path}: damaged: a track is in it twice; create it anew")
    if log_mel.ndim != 2 or log_mel.shape[1] != n_mels_kept:
        raise DatasetError(f"{path}: damaged: log_mel has shape {log_mel.shape}; create it anew")
    columns = ([str(value) for value in arrays[name]] for name in TEXTS)
    tracks = tuple(Track(*row) for row in zip(*columns, strict=True))
    rows = dict(zip(ids, np.split(log_mel, np.cumsum(n_frames)[:-1]), strict=True))

    def log_mel_of(track: Track, config: FeatureConfig) -> Array:
        differing = {k: v for k, v in config.log_mel_settings().items() if settings.get(k) != v}
        if config.n_mels_kept < n_mels_kept:  # a prefix of the bands
            differing.pop("n_mels_kept")
        if differing:
            stored = {name: settings.get(name) for name in differing}
            raise DatasetError(f"{path} has features of {stored}, not {differing}; create it anew, or set these")
        frames: Array = rows[track.id][:, : config.n_mels_kept].astype(np.float32)
        return frames

    return Dataset(path.stem, tracks, log_mel_of)
