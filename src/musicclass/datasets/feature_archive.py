"""Features of many tracks in one .npz file, without their audio: written by `musicclass extract-features`.

ids, genres, artists, audio_hashes, sources, confidences  (n_tracks,); all but the first two may be ""
log_mel                 (sum of n_frames, n_mels_kept), float16, dB
n_frames                (n_tracks,)
embeddings              (sum of n_patches, 200), float16, of the tagger
patch_times             (sum of n_patches, 2), seconds
n_patches               (n_tracks,); 0: log-mel frames alone
settings                the log-mel part of FeatureConfig, as JSON

sources, confidences and the tagger's arrays may be missing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from musicclass import tagger
from musicclass.config import FeatureConfig
from musicclass.datasets import CONFIDENCES, Dataset, Track
from musicclass.errors import DatasetError
from musicclass.features import TrackFeatures
from musicclass.files import write_atomically

TEXTS = {  # array -> Track's field
    "ids": "id", "genres": "genre", "artists": "artist", "audio_hashes": "audio_hash", "sources": "source",
    "confidences": "confidence",
}  # fmt: skip
OPTIONAL = ("sources", "confidences")
TAGGER = ("embeddings", "patch_times", "n_patches")


def write(path: Path, items: Iterable[tuple[Track, TrackFeatures]], config: FeatureConfig) -> int:
    """Write tracks and their features as an archive; returns the number of tracks.

    Raises DatasetError when there are no tracks, or `path` exists.
    """
    if path.exists():
        raise DatasetError(f"{path} exists; give another name, or delete it first")
    tracks, frames, patches = [], [], []
    for track, features in items:
        tracks.append(track)
        frames.append(features.log_mel.astype(np.float16))
        patches.append(features.patches or NO_PATCHES)
    if not tracks:
        raise DatasetError(f"no tracks left to write into {path}; see the warnings for why they were skipped")
    arrays: dict[str, Any] = {
        "settings": json.dumps(config.log_mel_settings()),
        **{name: [getattr(track, field) for track in tracks] for name, field in TEXTS.items()},
        "n_frames": [len(item) for item in frames],
        "log_mel": np.concatenate(frames),
        "embeddings": np.concatenate([item.embeddings for item in patches]).astype(np.float16),
        "patch_times": np.concatenate([item.times for item in patches]),
        "n_patches": [len(item.embeddings) for item in patches],
    }
    with write_atomically(path) as file:
        np.savez_compressed(file, **arrays)
    return len(tracks)


NO_PATCHES = tagger.TrackEmbeddings(np.zeros((0, tagger.EMBEDDING_SIZE), np.float32), np.zeros((0, 2)))


def read(path: Path) -> Dataset:
    """Open an archive. Raises DatasetError when it isn't one, or its parts don't fit together."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an .npz file")
        with np.load(path, allow_pickle=False) as file:
            names = (*TEXTS, *TAGGER, "n_frames", "log_mel", "settings")
            arrays = {name: file[name] for name in names if name in file or name not in (*OPTIONAL, *TAGGER)}
            settings = json.loads(str(arrays["settings"]))
            n_mels_kept = settings["n_mels_kept"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path}: not an archive of musicclass ({error}); create one with `musicclass "
            "extract-features` from audio, or scripts/convert_logmel.py from log-mel spectrograms"
        ) from None
    n_tracks, log_mel = len(arrays["ids"]), arrays["log_mel"]
    arrays = {name: np.full(n_tracks, "") for name in OPTIONAL} | _no_patches(n_tracks) | arrays
    ids = [str(item) for item in arrays["ids"]]
    if any(len(arrays[name]) != n_tracks for name in (*TEXTS, "n_frames", "n_patches")) or not (
        arrays["n_frames"].sum() == len(log_mel)
        and arrays["n_patches"].sum() == len(arrays["embeddings"]) == len(arrays["patch_times"])
    ):
        raise DatasetError(f"{path}: damaged: its arrays differ in length; create it anew")
    if len(set(ids)) != len(ids):
        raise DatasetError(f"{path}: damaged: a track is in it twice; create it anew")
    if invalid := sorted({str(grade) for grade in arrays["confidences"]} - {*CONFIDENCES, ""}):
        raise DatasetError(f"{path}: damaged: unknown confidence {invalid[0]!r}; create it anew")
    if log_mel.ndim != 2 or log_mel.shape[1] != n_mels_kept:
        raise DatasetError(f"{path}: damaged: log_mel has shape {log_mel.shape}; create it anew")
    columns = {field: [str(value) for value in arrays[name]] for name, field in TEXTS.items()}
    tracks = tuple(Track(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    rows = dict(zip(ids, np.split(log_mel, np.cumsum(arrays["n_frames"])[:-1]), strict=True))
    ends = np.cumsum(arrays["n_patches"])[:-1]
    pairs = zip(np.split(arrays["embeddings"], ends), np.split(arrays["patch_times"], ends), strict=True)
    patches = {
        name: tagger.TrackEmbeddings(vectors.astype(np.float32), times)
        for name, (vectors, times) in zip(ids, pairs, strict=True)
        if len(vectors)
    }

    def features_of(track: Track, config: FeatureConfig, with_tagger: bool) -> TrackFeatures:
        differing = {k: v for k, v in config.log_mel_settings().items() if settings.get(k) != v}
        if config.n_mels_kept < n_mels_kept:  # a prefix of the bands
            differing.pop("n_mels_kept")
        if differing:
            stored = {name: settings.get(name) for name in differing}
            raise DatasetError(f"{path} has features of {stored}, not {differing}; create it anew, or set these")
        frames = rows[track.id][:, : config.n_mels_kept].astype(np.float32)
        return TrackFeatures(
            frames, len(frames) / config.frames_per_second, patches.get(track.id) if with_tagger else None
        )

    return Dataset(path.stem, tracks, features_of)


def _no_patches(n_tracks: int) -> dict[str, Any]:
    return {"embeddings": NO_PATCHES.embeddings, "patch_times": NO_PATCHES.times, "n_patches": np.zeros(n_tracks, int)}
