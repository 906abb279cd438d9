"""Audio file or features -> normalized log-mel windows (n_windows, n, n_mels_kept), with times and embeddings.

A window is one input of the network. Silent windows are all zeros.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass import audio, tagger
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import SilentError, naming_errors
from musicclass.features import Array, TrackFeatures, log_mel, mfcc, track_features

SAMPLED_WINDOWS = 4  # per track with `sampled`

SWITCHING_COST = 2.0  # nats for a change of genre; chosen on concatenated held-out clips (benchmarks/genre_changes.py)
MIN_PROBABILITY = 1e-9  # on a path: no window excludes a genre

NEAREST = 3  # patches: all of a window in a short track; in a long one, those of a minute, as one alone varies


class TrackWindows(NamedTuple):
    """The windows of one track."""

    windows: Array  # (n_windows, n, n_mels_kept), dB above the floor; all zeros where silent
    times: npt.NDArray[np.float64]  # (n_windows, 2), start and end in seconds of each window's segment
    duration: float  # seconds
    embeddings: Array  # (n_windows, EMBEDDING_SIZE), see `window_embeddings`; all zeros without patches
    patches: tagger.TrackEmbeddings | None = None  # of the whole track
    seconds_lost: float = 0.0  # by damage


def extract_windows(
    source: audio.Source,
    features: FeatureConfig,
    limits: AudioConfig | None = None,
    sampled: bool = False,
    with_tagger: bool = False,
) -> TrackWindows:
    """The windows of a file, given by its path or as an open binary file; `with_tagger` adds their embeddings.

    With `sampled`, only SAMPLED_WINDOWS evenly spread windows of a long track are decoded, where its format allows
    seeking. Raises AudioError, whose message begins with the file's name.
    """
    track = _sampled_windows(source, features, limits, with_tagger) if sampled else None
    if track is None:
        track = windows_of_track(features_of_file(source, features, limits, with_tagger), features)
    with naming_errors(audio.source_name(source)):
        return check_sound(track)


def features_of_file(
    source: audio.Source, features: FeatureConfig, limits: AudioConfig | None = None, with_tagger: bool = False
) -> TrackFeatures:
    """`track_features` of a file, given by its path or as an open binary file. Raises AudioError."""
    lost: list[float] = []
    track = track_features(audio.stream(source, features.sample_rate, limits, lost.append), features, with_tagger)
    return track._replace(seconds_lost=sum(lost, 0.0))


def _sampled_windows(
    source: audio.Source, features: FeatureConfig, limits: AudioConfig | None, with_tagger: bool
) -> TrackWindows | None:
    seconds = features.window_seconds
    sampled = audio.sample_blocks(source, features.sample_rate, seconds, SAMPLED_WINDOWS, limits)
    if sampled is None:
        return None
    blocks, duration = sampled
    frames = [log_mel(samples, features)[: features.window_frames] for _, samples in blocks]
    windows = np.concatenate([log_mel_windows(window, features) for window in frames])
    times = np.array([(start, start + seconds) for start, _ in blocks])
    patches = _sampled_patches(blocks) if with_tagger else None
    return TrackWindows(windows, times, duration, window_embeddings(times, patches), patches)


def _sampled_patches(blocks: list[tuple[float, Array]]) -> tagger.TrackEmbeddings | None:
    """The tagger's outputs for the patch in the middle of each block, given by its start in seconds and samples."""
    offsets = [max(0, len(samples) - tagger.PATCH_SAMPLES) // 2 for _, samples in blocks]
    starts = [start + offset / tagger.SAMPLE_RATE for (start, _), offset in zip(blocks, offsets, strict=True)]
    middles = [samples[offset:] for (_, samples), offset in zip(blocks, offsets, strict=True)]
    return tagger.embed(np.stack([np.resize(samples, tagger.PATCH_SAMPLES) for samples in middles]), np.array(starts))


def windows_of_track(track: TrackFeatures, features: FeatureConfig) -> TrackWindows:
    """All windows of a track.

    Windows overlap so that they cover the track evenly; their segments are equal parts of the track.
    """
    windows = log_mel_windows(track.log_mel, features)
    edges = np.arange(len(windows) + 1) * (track.duration / len(windows))
    times = np.stack([edges[:-1], edges[1:]], axis=1)
    embeddings = window_embeddings(times, track.patches)
    return TrackWindows(windows, times, track.duration, embeddings, track.patches, track.seconds_lost)


def window_embeddings(times: npt.NDArray[np.float64], patches: tagger.TrackEmbeddings | None) -> Array:
    """For each segment (n_windows, 2) in seconds, the mean normalized embedding of the NEAREST patches to its center.

    (n_windows, EMBEDDING_SIZE), of length 1; zeros without patches.
    """
    if patches is None or not len(patches.embeddings):
        return np.zeros((len(times), tagger.EMBEDDING_SIZE), np.float32)
    distance = np.abs(times.mean(axis=1)[:, None] - patches.times.mean(axis=1))
    nearest = distance.argsort(axis=1, kind="stable")[:, :NEAREST]
    return tagger.unit_length(tagger.normalize(patches.embeddings)[nearest].mean(axis=1))


def most_probable_path(probabilities: Array, switching_cost: float = SWITCHING_COST) -> list[int]:
    """The index of the genre of each window on the most probable path through `probabilities` (n_windows, n_genres).

    Viterbi's algorithm for a hidden Markov model whose states are the genres: the log-probability of a path is the sum
    of those of its genres, less `switching_cost` (nats) for each change. Silent windows, all zeros, have no influence.
    The browser computes the same (server/static/browser-worker.js).
    """
    log_probabilities = np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))
    genres = np.arange(log_probabilities.shape[1])
    scores, previous = log_probabilities[0], []
    for row in log_probabilities[1:]:
        best = scores.argmax()
        switched = scores[best] - switching_cost
        previous.append(np.where(switched > scores, best, genres))
        scores = np.maximum(switched, scores) + row
    path = [int(scores.argmax())]
    for origins in reversed(previous):
        path.append(int(origins[path[-1]]))
    return path[::-1]


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
