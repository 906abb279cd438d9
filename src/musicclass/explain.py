"""Which seconds and which frequencies of a track its genre rests on: cover them one by one, and see what is lost.

Covered cells are set to their window's mean, as the masks of training are, so the CNN-LSTM has met such holes
before (occlusion: Zeiler & Fergus 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.classifier import Classifier
from musicclass.confidence import Floats
from musicclass.config import FeatureConfig
from musicclass.features import Array, hz_to_mel, mel_to_hz, mfcc, scale_window, window_starts
from musicclass.prediction import Prediction

CELL_SECONDS = 1.0
BAND_GROUPS = 8
STRETCHES = 5  # as many as one takes in at a glance


@dataclass(frozen=True)
class Explanation:
    """What is lost of the log-odds of `genre` when one cell is covered, on average over the windows that hold it."""

    prediction: Prediction
    genre: str
    times: tuple[float, ...]  # edges of the cells in seconds, (n + 1,)
    frequencies: tuple[float, ...]  # edges in Hz, (m + 1,)
    weights: Array  # (n, m); below 0 where covering it makes the genre more probable
    log_mel: Array  # (n_frames, n_bands) in dB, for drawing

    def seconds(self, share: float = 0.2) -> list[tuple[float, float]]:
        """The stretches that matter most, in order of time: of the best `share` of the cells, adjoining ones as one.

        In long tracks these are many; then the STRETCHES of greatest weight.
        """
        total = self.weights.sum(axis=1)
        most = np.sort(np.argsort(-total, kind="stable")[: max(1, round(share * len(total)))])
        runs = np.split(most, np.flatnonzero(np.diff(most) > 1) + 1)
        runs = sorted(sorted(runs, key=lambda run: -total[run].sum())[:STRETCHES], key=lambda run: run[0])
        return [(self.times[run[0]], self.times[run[-1] + 1]) for run in runs]

    def region(self) -> tuple[float, float]:
        """The band of frequencies (Hz, from and to) that matters most."""
        best = int(self.weights.sum(axis=0).argmax())
        return self.frequencies[best], self.frequencies[best + 1]

    def in_words(self) -> str:
        """Such as "rests most on 0:12-0:15, 0:20-0:21, and on 430-860 Hz"."""
        spans = ", ".join(f"{_clock(start)}-{_clock(end)}" for start, end in self.seconds())
        low, high = self.region()
        return f"{self.genre} rests most on {spans}, and on {low:.0f}-{high:.0f} Hz"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the log-mel frames."""
        return {
            "genre": self.genre,
            "seconds": self.seconds(),
            "region": self.region(),
            "times": self.times,
            "frequencies": self.frequencies,
            "weights": self.weights.round(6).tolist(),
        }


def explain(classifier: Classifier, frames: Array, prediction: Prediction, genre: str | None = None) -> Explanation:
    """Why a track's log-mel `frames` (n_frames, n_bands) are told as they are, or how far they would be `genre`."""
    config, duration, genre = classifier.bundle.features, prediction.duration, genre or prediction.best_guess
    index = classifier.genres.index(genre)
    n_cells = max(1, round(duration / CELL_SECONDS))
    time_of, band_of = _cells(len(frames), n_cells, config)
    lost, looks = np.zeros((n_cells, BAND_GROUPS)), np.zeros((n_cells, 1))
    for start in window_starts(len(frames), config):
        window = scale_window(frames, start, config)
        if not np.ptp(window):
            continue
        cells = np.unique(time_of[start : start + len(window)])
        holes = [_holes(time_of[start : start + len(window)] == cell, band_of) for cell in cells]
        whole = _log_odds(classifier.probabilities(mfcc(window[None], config.n_mfcc))[0, index])
        for cell, masks in zip(cells, holes, strict=True):
            covered = np.where(masks, window.mean(), window)
            lost[cell] += whole - _log_odds(classifier.probabilities(mfcc(covered, config.n_mfcc))[:, index])
            looks[cell] += 1
    weights: Array = (lost / np.maximum(1, looks)).astype(np.float32)
    return Explanation(
        prediction=prediction,
        genre=genre,
        times=tuple(float(i * duration / n_cells) for i in range(n_cells + 1)),
        frequencies=_group_edges(config),
        weights=weights,
        log_mel=frames,
    )


def cover(frames: Array, cells: npt.NDArray[np.bool_], config: FeatureConfig) -> Array:
    """MFCC windows of a track with the cells (n, m) of an explanation covered."""
    time_of, band_of = _cells(len(frames), len(cells), config)
    hidden = cells[time_of][:, band_of]
    windows = []
    for start in window_starts(len(frames), config):
        window = scale_window(frames, start, config)
        windows.append(np.where(hidden[start : start + len(window)], window.mean(), window))
    return mfcc(np.stack(windows), config.n_mfcc)


def _cells(n_frames: int, n_cells: int, config: FeatureConfig) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The row and the column of an explanation that each frame, and each band, belongs to."""
    return np.arange(n_frames) * n_cells // n_frames, np.arange(config.n_bands) * BAND_GROUPS // config.n_bands


def _log_odds(probability: Floats) -> Floats:
    """Unlike the probability itself, not deaf where the model is sure."""
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    odds: Floats = np.log(clipped / (1 - clipped))
    return odds


def _holes(rows: npt.NDArray[np.bool_], band_of: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Masks (BAND_GROUPS, n_frames, n_bands): the rows, for one group of bands each."""
    groups = band_of == np.arange(BAND_GROUPS)[:, None]
    masks: npt.NDArray[np.bool_] = rows[None, :, None] & groups[:, None, :]
    return masks


def _group_edges(config: FeatureConfig) -> tuple[float, ...]:
    """Frequencies (Hz) between the groups of mel bands."""
    low, high = hz_to_mel([config.fmin, config.fmax])
    firsts = np.array([-(-group * config.n_bands // BAND_GROUPS) for group in range(BAND_GROUPS + 1)])
    mels = low + (high - low) * (firsts + 0.5 * (firsts > 0)) / (config.n_mels + 1)
    return tuple(float(f) for f in mel_to_hz(mels))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
