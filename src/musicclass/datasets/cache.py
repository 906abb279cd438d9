"""Log-mel features of audio files, computed once for the same bytes and settings."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np

from musicclass import audio
from musicclass.config import FeatureConfig
from musicclass.datasets import Track
from musicclass.errors import DecodeError
from musicclass.features import Array, log_mel_with_duration
from musicclass.files import file_hash, write_atomically

VERSION = 1  # increased when the same settings give other features


def cache_folder() -> Path:
    """$MUSICCLASS_CACHE, or the user's cache folder."""
    own = os.environ.get("MUSICCLASS_CACHE")
    shared = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(shared) / "musicclass"


def cached_log_mel(track: Track, config: FeatureConfig) -> Array:
    """The log-mel frames of the track's file, in dB (n_frames, n_mels_kept).

    Raises AudioError when the file can't be used.
    """
    assert track.path is not None
    settings = json.dumps(config.log_mel_settings(), sort_keys=True)
    try:
        content = file_hash(track.path)
    except OSError as error:
        raise DecodeError(f"{track.path}: can't be read ({error}); check its permissions and the disk") from None
    key = hashlib.sha256(f"{VERSION} {content} {settings}".encode()).hexdigest()
    stored = cache_folder() / "features" / key[:2] / f"{key}.npy"
    try:
        cached: Array = np.load(stored, allow_pickle=False)
        return cached
    except (OSError, ValueError, EOFError):
        frames, _ = log_mel_with_duration(audio.stream(track.path, config.sample_rate), config)
    try:
        with write_atomically(stored) as file:
            np.save(file, frames)
    except OSError as error:
        reason = error.strerror or error
        message = f"{cache_folder()}: features can't be cached ({reason}); set MUSICCLASS_CACHE to another folder"
        warnings.warn(message, stacklevel=2)
    return frames


def audio_hash(path: Path) -> str:
    """SHA-256 of a file, or "" where it can't be read: it is skipped, with a warning, when features are computed."""
    try:
        return file_hash(path)
    except OSError:
        return ""
