"""Waveform (n,) -> log-mel (n_frames, n_bands) in dB -> scaled windows -> MFCC (n_frames, n_mfcc).

The mel filter bank (Slaney's), the frames (Hann window, centred, zero-padded) and the decibels are
those of librosa.feature.melspectrogram and librosa.power_to_db, which the tests hold it against.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse

from musicclass.config import FeatureConfig

Array = npt.NDArray[np.float32]

POWER_FLOOR = 1e-10  # power below this counts as this: -100 dB
FRAMES_AT_ONCE = 64  # fits the cache; a constant, so that a frame never depends on how audio was cut
ONE_THREAD = 2**18  # multiplications in a product that OpenBLAS leaves to one thread


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
    """Triangles of equal area, (n_bands, n_fft // 2 + 1)."""
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    edges = _band_edges(config)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return bank[: config.n_bands].astype(np.float32)


def highest_frequency(config: FeatureConfig) -> float:
    """Where the highest band that is kept ends, in Hz."""
    return float(_band_edges(config)[config.n_bands + 1])


def _band_edges(config: FeatureConfig) -> npt.NDArray[np.float64]:
    """Band i rises from edge i, in Hz, and has fallen at edge i + 2."""
    ends = hz_to_mel([config.fmin, config.fmax])
    return mel_to_hz(np.linspace(ends[0], ends[1], config.n_mels + 2))


@functools.lru_cache(maxsize=8)
def _constants(config: FeatureConfig) -> tuple[Array, scipy.sparse.csr_matrix]:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    bank = scipy.sparse.csr_matrix(mel_filterbank(config))
    return hann.astype(np.float32), bank[:, : bank.indices.max() + 1]  # what lies above the last band is not needed


def log_mel(waveform: Array, config: FeatureConfig) -> Array:
    """Log-mel frames of a waveform (n,) at `config.sample_rate`, in dB: (1 + n // hop_length, n_bands).

    Raises ValueError when there is no sample.
    """
    return log_mel_of_blocks([waveform], config)


def log_mel_of_blocks(blocks: Iterable[Array], config: FeatureConfig) -> Array:
    """Like `log_mel`, of a waveform that comes in blocks of any length; the cuts change no bit of the result."""
    parts = [_log_mel_of_frames(frames, config) for frames in _frames(blocks, config)]
    if not parts:
        raise ValueError("no samples to make log-mel frames of")
    return np.concatenate(parts)


def _frames(blocks: Iterable[Array], config: FeatureConfig) -> Iterator[Array]:
    """Frames (at most FRAMES_AT_ONCE, n_fft), the first one centred on the first sample."""
    step = FRAMES_AT_ONCE * config.hop_length
    enough = step - config.hop_length + config.n_fft
    rest = np.zeros(config.n_fft // 2, dtype=np.float32)
    n_samples = 0
    for block in blocks:
        n_samples += len(block)
        block = block.astype(np.float32, copy=False)
        seam = np.concatenate([rest, block[:enough]])  # only here are samples copied
        in_seam = min(math.ceil(len(rest) / step), max(0, (len(seam) - enough) // step + 1))
        yield from _chunks(seam, in_seam, config)
        start = in_seam * step - len(rest)
        if start < 0:
            rest = np.concatenate([rest[start:], block])
            continue
        in_block = max(0, (len(block) - start - enough) // step + 1)
        yield from _chunks(block[start:], in_block, config)
        rest = block[start + in_block * step :].copy()
    rest = np.concatenate([rest, np.zeros(config.n_fft // 2, dtype=np.float32)])
    if n_samples and len(rest) >= config.n_fft:
        yield _sliced(rest, config)


def _chunks(samples: Array, count: int, config: FeatureConfig) -> Iterator[Array]:
    """The first `count` times FRAMES_AT_ONCE frames."""
    frames = _sliced(samples, config) if count else samples
    for i in range(count):
        yield frames[i * FRAMES_AT_ONCE : (i + 1) * FRAMES_AT_ONCE]


def _sliced(samples: Array, config: FeatureConfig) -> Array:
    return np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)[:: config.hop_length]


def _log_mel_of_frames(frames: Array, config: FeatureConfig) -> Array:
    hann, bank = _constants(config)
    spectrum = scipy.fft.rfft(frames * hann, axis=-1)[:, : bank.shape[1]].T
    power = np.square(spectrum.real, order="C")  # in the order that the product would else copy it into
    power += np.square(spectrum.imag, order="C")
    mel: Array = (bank @ power).T
    np.maximum(mel, np.float32(POWER_FLOOR), out=mel)
    np.log(mel, out=mel)
    mel *= np.float32(10 / math.log(10))
    return mel


def window_starts(n_frames: int, config: FeatureConfig) -> list[int]:
    """First frames of the windows that a track of `n_frames` is heard in: as few as cover it, evenly spread.

    A track shorter than a window is one window, as short as itself: nothing is padded or repeated.
    """
    spare = n_frames - config.window_frames
    if spare <= 0:
        return [0]
    count = math.ceil(n_frames / config.window_frames)
    return [round(i * spare / (count - 1)) for i in range(count)]


def scale_window(frames: Array, start: int, config: FeatureConfig, length: int | None = None) -> Array:
    """The window from frame `start` of a track's log-mel `frames`, in dB above the floor.

    It is `length` frames long (by default `config.window_frames`), or ends with the track.

    The floor is `top_db` below the maximum, which is that of the `scale_seconds` around the window, so a
    30 s clip is scaled as a whole, whichever of its windows is looked at. A stretch of one single value
    becomes zeros, as silence does.
    """
    window = frames[start : start + (length or config.window_frames)]
    first = start + (len(window) - config.scale_frames) // 2
    first = max(0, min(first, len(frames) - config.scale_frames))
    around = frames[first : first + config.scale_frames]
    high = around.max()
    if around.min() == high:
        return np.zeros_like(window)
    above: Array = np.maximum(window - high + np.float32(config.top_db), 0)
    return above


def mfcc(scaled: Array, n_mfcc: int) -> Array:
    """The first `n_mfcc` coefficients of the orthonormal DCT-II over the bands: (..., n_bands) -> (..., n_mfcc)."""
    rows = scaled.reshape(-1, scaled.shape[-1])
    return product(rows, _dct_matrix(rows.shape[1], n_mfcc)).reshape(*scaled.shape[:-1], n_mfcc)


def product(rows: Array, matrix: Array, out: Array | None = None) -> Array:
    """`rows` (n, k) @ `matrix` (k, m), into `out` if given, to the same bits on any number of threads.

    Whole, it would be divided among the threads, at other rows for each number of them, and BLAS adds up otherwise at
    an edge. So it is done in pieces that are too small for that.
    """
    made = np.empty((len(rows), matrix.shape[1]), np.float32) if out is None else out
    height = max(1, ONE_THREAD // matrix.size)
    whole = len(rows) // height * height
    pieces, places = (x[:whole].reshape(-1, height, x.shape[1]) for x in (rows, made))
    np.matmul(pieces, matrix, out=places)
    np.matmul(rows[whole:], matrix, out=made[whole:])
    return made


@functools.lru_cache(maxsize=8)
def _dct_matrix(n_bands: int, n_mfcc: int) -> Array:
    """As a product, the DCT of 127 bands, a prime number, is six times as fast as by FFT."""
    matrix: Array = scipy.fft.dct(np.eye(n_bands), type=2, axis=-1, norm="ortho")[:, :n_mfcc].astype(np.float32)
    return np.ascontiguousarray(matrix)
