"""Audio file or log-mel frames -> normalized log-mel windows (n_windows, n, n_mels_kept) with their times.

A window is one input of the network. Silent windows are all zeros.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass import audio
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import SilentError, naming_errors
from musicclass.features import Array, log_mel, log_mel_with_duration, mfcc

SAMPLED_WINDOWS = 4  # per track with `sampled`


class TrackWindows(NamedTuple):
    """The windows of one track."""

    windows: Array  # (n_windows, n, n_mels_kept), dB above the floor; all zeros where silent
    times: npt.NDArray[np.float64]  # (n_windows, 2), start and end in seconds of each window's segment
    duration: float  # seconds


def extract_windows(
    source: audio.Source, features: FeatureConfig, limits: AudioConfig | None = None, sampled: bool = False
) -> TrackWindows:
    """The windows of a file, given by its path or as an open binary file.

    With `sampled`, only SAMPLED_WINDOWS evenly spread windows of a long track are decoded, where its format allows
    seeking. Raises AudioError, whose message begins with the file's name.
    """
    track = _sampled_windows(source, features, limits) if sampled else None
    if track is None:
        frames, duration = log_mel_with_duration(audio.stream(source, features.sample_rate, limits), features)
        track = windows_of_track(frames, duration, features)
    with naming_errors(audio.source_name(source)):
        return check_sound(track)


def _sampled_windows(source: audio.Source, features: FeatureConfig, limits: AudioConfig | None) -> TrackWindows | None:
    seconds = features.window_seconds
    sampled = audio.sample_blocks(source, features.sample_rate, seconds, SAMPLED_WINDOWS, limits)
    if sampled is None:
        return None
    blocks, duration = sampled
    frames = [log_mel(samples, features)[: features.window_frames] for _, samples in blocks]
    windows = np.concatenate([log_mel_windows(window, features) for window in frames])
    times = np.array([(start, start + seconds) for start, _ in blocks])
    return TrackWindows(windows, times, duration)


def windows_of_track(frames: Array, duration: float, features: FeatureConfig) -> TrackWindows:
    """All windows of a track's log-mel `frames` (n_frames, n_mels_kept) in dB.

    Windows overlap so that they cover the track evenly; their segments are equal parts of the track.
    """
    windows = log_mel_windows(frames, features)
    edges = np.arange(len(windows) + 1) * (duration / len(windows))
    return TrackWindows(windows, np.stack([edges[:-1], edges[1:]], axis=1), duration)


def check_sound(track: TrackWindows) -> TrackWindows:
    """The track itself. Raises SilentError when all its windows are silent."""
    if not track.windows.any():
        raise SilentError("silent throughout; check how it was recorded or exported")
    return track


def log_mel_windows(frames: Array, config: FeatureConfig) -> Array:
    """The normalized windows of a track, (n_windows, n, n_mels_kept), n = min(config.window_frames, n_frames)."""
    windows = np.stack([normalize_window(frames, start, config) for start in window_starts(len(frames), config)])
    windows[np.ptp(windows, axis=(1, 2)) == 0] = 0
    return windows


def mfcc_windows(frames: Array, config: FeatureConfig) -> Array:
    """`log_mel_windows` as MFCCs (n_windows, n, n_mfcc); silent windows are all zeros."""
    return mfcc(log_mel_windows(frames, config), config.n_mfcc)


def window_starts(n_frames: int, config: FeatureConfig) -> list[int]:
    """The first frame of each window: the smallest number of windows that covers the track, evenly spread.

    A track shorter than a window is one short window, without padding.
    """
    last_start = n_frames - config.window_frames
    if last_start <= 0:
        return [0]
    count = math.ceil(n_frames / config.window_frames)
    return [round(i * last_start / (count - 1)) for i in range(count)]


def normalize_window(frames: Array, start: int, config: FeatureConfig, length: int | None = None) -> Array:
    """The window of `length` frames (default: `config.window_frames`) from frame `start`, in dB above the floor.

    The floor is `top_db` below the maximum over the `norm_seconds` around the window: a 30 s clip is normalized as a
    whole. Where all those frames are constant, the window is all zeros.
    """
    window = frames[start : start + (length or config.window_frames)]
    first = start + (len(window) - config.norm_frames) // 2
    first = max(0, min(first, len(frames) - config.norm_frames))
    context = frames[first : first + config.norm_frames]
    maximum = context.max()
    if context.min() == maximum:
        return np.zeros_like(window)
    above_floor: Array = np.maximum(window - maximum + np.float32(config.top_db), 0)
    return above_floor
