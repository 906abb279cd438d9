"""Waveform (n,) -> log-mel frames (n_frames, n_mels_kept) in dB; log-mel windows -> MFCCs.

Equal within 0.001 dB to librosa.feature.melspectrogram (Hann window, centered and zero-padded frames, Slaney's mel
filter bank) and librosa.power_to_db, as the tests check, without librosa's dependencies and start-up time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass import tagger
from musicclass.config import FeatureConfig

Array = npt.NDArray[np.float32]

POWER_FLOOR = 1e-10  # smaller power is set to this: -100 dB
FRAMES_PER_CHUNK = 64  # fits the cache; constant, so that results don't depend on the sizes of audio blocks
BANDS_PER_BLOCK = 16  # of the filter bank, most of which is zero


class TrackFeatures(NamedTuple):
    """What is computed from the samples of one track."""

    log_mel: Array  # (n_frames, n_mels_kept), dB
    duration: float  # seconds
    patches: tagger.TrackEmbeddings | None = None  # None: not wanted, silent, or without the tagger
    seconds_lost: float = 0.0  # of the file, by damage


def track_features(blocks: Iterable[Array], config: FeatureConfig, with_tagger: bool = False) -> TrackFeatures:
    """The features of a waveform in blocks (n,) of any sizes at `config.sample_rate`.

    `with_tagger` needs the tagger's sample rate. Raises ValueError for an empty waveform.
    """
    if not with_tagger:
        return TrackFeatures(*log_mel_with_duration(blocks, config))
    sampler = tagger.PatchSampler()
    frames, duration = log_mel_with_duration(sampler.observe(blocks), config)
    return TrackFeatures(frames, duration, tagger.embed(*sampler.patches()))


def hz_to_mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    f = np.asarray(hz, dtype=np.float64)
    log_part = 15 + 27 * np.log(np.maximum(f, 1e-9) / 1000) / math.log(6.4)
    return np.where(f < 1000, f * 3 / 200, log_part)


def mel_to_hz(mel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The inverse of `hz_to_mel`."""
    m = np.asarray(mel, dtype=np.float64)
    return np.where(m < 15, m * 200 / 3, 1000 * np.exp((m - 15) * math.log(6.4) / 27))


def mel_filterbank(config: FeatureConfig) -> Array:
    """Triangular filters of equal area, (n_mels_kept, n_fft // 2 + 1)."""
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    low, high = hz_to_mel([config.fmin, config.fmax])
    edges = mel_to_hz(np.linspace(low, high, config.n_mels + 2))  # band i rises from edge i to i + 1, falls to i + 2
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return bank[: config.n_mels_kept].astype(np.float32)


@functools.lru_cache(maxsize=8)
def _constants(config: FeatureConfig) -> tuple[Array, list[tuple[slice, slice, Array]]]:
    """The Hann window, and the mel filter bank as blocks: bands, their bins, and the weights (n_bands, n_bins)."""
    bank, blocks = mel_filterbank(config), []
    for first in range(0, len(bank), BANDS_PER_BLOCK):
        bands = slice(first, first + BANDS_PER_BLOCK)
        bins = np.flatnonzero(bank[bands].any(axis=0))
        columns = slice(int(bins[0]), int(bins[-1]) + 1)
        blocks.append((bands, columns, np.ascontiguousarray(bank[bands, columns])))
    return hann_window(config.n_fft), blocks


def hann_window(n_fft: int) -> Array:
    """Periodic Hann window (n_fft,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def log_mel(waveform: Array, config: FeatureConfig) -> Array:
    """Log-mel frames (1 + n // hop_length, n_mels_kept) in dB of a waveform (n,) at `config.sample_rate`.

    Raises ValueError for an empty waveform.
    """
    return log_mel_with_duration([waveform], config)[0]


def log_mel_with_duration(blocks: Iterable[Array], config: FeatureConfig) -> tuple[Array, float]:
    """`log_mel` of a waveform in blocks (n,) of any sizes, which don't affect it, and the duration in seconds."""
    n_samples = 0

    def count() -> Iterator[Array]:
        nonlocal n_samples
        for block in blocks:
            n_samples += len(block)
            yield block

    compute = _LogMel(config)
    parts = [compute(frames) for frames in _frames(count(), config)]
    if not parts:
        raise ValueError("no samples to compute log-mel frames from")
    return np.concatenate(parts), n_samples / config.sample_rate


def _frames(blocks: Iterable[Array], config: FeatureConfig) -> Iterator[Array]:
    """Overlapping frames in chunks (at most FRAMES_PER_CHUNK, n_fft), the first frame centered on the first sample."""
    chunk_hop = FRAMES_PER_CHUNK * config.hop_length
    chunk_samples = chunk_hop - config.hop_length + config.n_fft
    padding = np.zeros(config.n_fft // 2, np.float32)
    pending, n_samples = padding, 0
    for block in blocks:
        n_samples += len(block)
        pending = np.concatenate([pending, block], dtype=np.float32)
        n_chunks = max(0, (len(pending) - chunk_samples) // chunk_hop + 1)
        if n_chunks:
            yield from _chunks(pending[: (n_chunks - 1) * chunk_hop + chunk_samples], config)
        pending = pending[n_chunks * chunk_hop :]
    pending = np.concatenate([pending, padding])
    if n_samples and len(pending) >= config.n_fft:
        yield from _chunks(pending, config)


def _chunks(samples: Array, config: FeatureConfig) -> Iterator[Array]:
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length]
    for start in range(0, len(frames), FRAMES_PER_CHUNK):
        yield frames[start : start + FRAMES_PER_CHUNK]


class _LogMel:
    """Frames (at most FRAMES_PER_CHUNK, n_fft) -> log-mel; memory is reused: fresh pages cost as much as the FFT."""

    def __init__(self, config: FeatureConfig):
        self._hann, self._filter_blocks = _constants(config)
        n_bins = self._filter_blocks[-1][1].stop
        self._windowed = np.empty((FRAMES_PER_CHUNK, config.n_fft), np.float32)
        self._spectrum: Any = np.empty((FRAMES_PER_CHUNK, config.n_fft // 2 + 1), np.complex64)
        self._power, self._square = np.empty((2, n_bins, FRAMES_PER_CHUNK), np.float32)
        self._n_bands = config.n_mels_kept

    def __call__(self, frames: Array) -> Array:
        n = len(frames)
        np.multiply(frames, self._hann, out=self._windowed[:n])
        np.fft.rfft(self._windowed[:n], out=self._spectrum[:n])
        bins, power = self._spectrum[:n, : len(self._power)].T, self._power[:, :n]
        np.square(bins.real, out=power)
        power += np.square(bins.imag, out=self._square[:, :n])
        mel = np.empty((self._n_bands, n), np.float32)
        for bands, columns, weights in self._filter_blocks:
            np.matmul(weights, power[columns], out=mel[bands])
        np.maximum(mel, np.float32(POWER_FLOOR), out=mel)
        np.log(mel, out=mel)
        mel *= np.float32(10 / math.log(10))
        return mel.T


def mfcc(windows: Array, n_mfcc: int) -> Array:
    """MFCCs (..., n_mfcc): the first coefficients of the orthonormal DCT-II of log-mel windows (..., n_mels_kept)."""
    rows = windows.reshape(-1, windows.shape[-1])
    coefficients: Array = (rows @ dct_matrix(rows.shape[1], n_mfcc)).reshape(*windows.shape[:-1], n_mfcc)
    return coefficients


@functools.lru_cache(maxsize=8)
def dct_matrix(n_bands: int, n_mfcc: int) -> Array:
    """The orthonormal DCT-II as a matrix (n_bands, n_mfcc)."""
    k, band = np.arange(n_mfcc), np.arange(n_bands)[:, None]
    matrix = np.cos(np.pi * k * (band + 0.5) / n_bands) * np.sqrt(2 / n_bands)
    matrix[:, 0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)
