"""Features of audio files, computed once for the same bytes and settings."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from musicclass import audio, tagger
from musicclass.config import FeatureConfig
from musicclass.datasets import Track
from musicclass.errors import DecodeError
from musicclass.features import TrackFeatures, track_features
from musicclass.files import file_hash, write_atomically

VERSION = 2  # increased when the same settings give other features


def cache_folder() -> Path | None:
    """$MUSICCLASS_CACHE, or the user's cache folder; None, with a warning, for a user without a home."""
    try:
        if own := os.environ.get("MUSICCLASS_CACHE"):
            return Path(own).expanduser()
        shared = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home, or no such user
        warnings.warn("no home folder: features aren't cached; set MUSICCLASS_CACHE to a folder", stacklevel=3)
        return None
    return Path(shared) / "musicclass"


def cached_features(track: Track, config: FeatureConfig, with_tagger: bool) -> TrackFeatures:
    """The features of the track's file.

    Raises AudioError when the file can't be used.
    """
    assert track.path is not None
    with_tagger = with_tagger and tagger.available()
    settings = json.dumps([config.log_mel_settings(), with_tagger], sort_keys=True)
    try:
        content = file_hash(track.path)
    except OSError as error:
        raise DecodeError(f"{track.path}: can't be read ({error}); check its permissions and the disk") from None
    key = hashlib.sha256(f"{VERSION} {content} {settings}".encode()).hexdigest()
    folder = cache_folder()
    if folder is None:
        return track_features(audio.stream(track.path, config.sample_rate), config, with_tagger)
    stored = folder / "features" / key[:2] / f"{key}.npz"
    try:
        with np.load(stored, allow_pickle=False) as file:
            patches = tagger.TrackEmbeddings(file["embeddings"], file["times"]) if "embeddings" in file else None
            return TrackFeatures(file["log_mel"], float(file["duration"]), patches)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        features = track_features(audio.stream(track.path, config.sample_rate), config, with_tagger)
    patches = features.patches
    arrays: dict[str, Any] = {"embeddings": patches.embeddings, "times": patches.times} if patches else {}
    try:
        with write_atomically(stored) as file:
            np.savez(file, log_mel=features.log_mel, duration=features.duration, **arrays)
    except OSError as error:
        reason = error.strerror or error
        message = f"{folder}: features can't be cached ({reason}); set MUSICCLASS_CACHE to another folder"
        warnings.warn(message, stacklevel=2)
    return features


def audio_hash(path: Path) -> str:
    """SHA-256 of a file, or "" where it can't be read: it is skipped, with a warning, when features are computed."""
    try:
        return file_hash(path)
    except OSError:
        return ""
