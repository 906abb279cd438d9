"""Stereo at 44.1 kHz -> mono at 22.05 kHz: what nearly every file needs, at a twelfth of the time of decoding it.

Mixing and filtering are linear, so both are one matrix product over stretches of the file: twice as fast as mixing
and then resampling. Where nobody listens up to half of the new rate, the filter is short enough for that.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.signal

from musicclass.features import Array, product

STRETCH = 32  # frames of the file in a row of the product; half as many samples come of it
TAPS = 27
PASSBAND = 1 / 6  # of the file's rate: up to 7,350 of 44,100 Hz is kept within 0.001 dB; what folds there is 80 dB down
EARLY = (TAPS // 2 + 1) // 2  # samples that a row is ahead by, so that it needs the next row, but none before it
REACH = TAPS - 1  # frames that it needs of the next row


@functools.lru_cache(maxsize=8)
def _matrices(channels: int) -> tuple[Array, Array]:
    """What a row of the file gives to its own samples, and its beginning to those of the row before."""
    taps = scipy.signal.remez(TAPS, [0, PASSBAND, 0.5 - PASSBAND, 0.5], [1, 0], fs=1)
    filters = np.zeros((2 * STRETCH, STRETCH // 2))
    for sample in range(STRETCH // 2):
        first = 2 * (sample + EARLY) - TAPS // 2
        filters[first : first + TAPS, sample] = taps / channels
    both: Array = np.repeat(np.float32(filters), channels, axis=0)
    return both[: STRETCH * channels], both[STRETCH * channels : (STRETCH + REACH) * channels]


class Halver:
    """Half-band filter (by scipy's remez) for a sound that comes in blocks."""

    def __init__(self, channels: int):
        self._channels = channels
        self._frames = self._samples = 0  # that came, and that went
        self._rest = np.zeros((0, channels), np.float32)  # frames that fill no row yet
        self._begun = np.zeros(STRETCH // 2, np.float32)  # the last row's samples, but for what the next row gives

    def convert(self, block: Array) -> Array:
        """The samples (n,) that a block of any length (n, channels) completes; NaN and infinity come out as NaN."""
        self._frames += len(block)
        if len(self._rest):
            block = np.concatenate([self._rest, block])
        rows = len(block) // STRETCH
        self._rest = block[rows * STRETCH :].copy()
        if not rows:
            return np.zeros(0, np.float32)
        samples = self._product(block[: rows * STRETCH].reshape(rows, -1))
        samples = samples if self._samples else samples[-EARLY - (rows - 1) * STRETCH // 2 :]
        self._samples += len(samples)
        return samples

    def end(self) -> Array:
        """The samples that are left: in all, half as many as there were frames, rounded up."""
        left = (self._frames + 1) // 2 - self._samples
        return self.convert(np.zeros((2 * STRETCH, self._channels), np.float32))[:left]

    def _product(self, rows: Array) -> Array:
        own, before = _matrices(self._channels)
        made = np.empty((len(rows) + 1, STRETCH // 2), np.float32)
        made[0] = self._begun
        with np.errstate(invalid="ignore"):  # infinity comes out as NaN, and is told there
            product(rows, own, out=made[1:])
            made[:-1] += product(rows[:, : len(before)], before)
        self._begun = made[-1].copy()
        return made[:-1].ravel()
