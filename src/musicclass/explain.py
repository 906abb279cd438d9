"""Explain a prediction by occlusion (Zeiler & Fergus 2014): the times and frequencies it depends on.

Cells of the log-mel windows are set to the window's mean, as by the masks of training (SpecAugment). Of a long track,
MAX_WINDOWS windows are examined, so that an explanation takes as long as that of a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from musicclass.config import FeatureConfig
from musicclass.features import Array, hz_to_mel, mel_to_hz
from musicclass.prediction import Prediction, rounded
from musicclass.windows import normalize_window, window_starts

CELL_SECONDS = 1.0  # duration of a cell
BAND_GROUPS = 8  # cells over frequency
SILENT_DB = 60  # cells that are this much below the loudest frame don't count
MAX_SPANS = 5  # in summaries
MAX_WINDOWS = 5  # that are examined: less than a second on one core


@dataclass(frozen=True)
class Explanation:
    """The decrease of the log-odds of `genre` when a cell is occluded: the mean over the windows that contain it."""

    prediction: Prediction
    genre: str
    times: tuple[float, ...]  # edges of the cells in seconds, (n + 1,)
    frequencies: tuple[float, ...]  # edges in Hz, (m + 1,)
    weights: Array  # (n, m); negative where occlusion makes the genre more probable
    log_mel: Array  # (n_frames, n_mels_kept) in dB
    examined: tuple[tuple[float, float], ...] = ()  # the windows' (start, end) in seconds; elsewhere, weights are 0

    def top_spans(self, fraction: float = 0.2) -> list[tuple[float, float]]:
        """The time spans (start, end) in seconds with the largest weights, in order of time; at most MAX_SPANS.

        The top `fraction` of the times of cells with weights, where adjacent ones are merged.
        """
        total = np.where(self.weights.any(axis=1), self.weights.sum(axis=1), -np.inf)  # silence isn't evidence
        count = max(1, round(fraction * np.isfinite(total).sum()))
        top = np.sort(np.argsort(-total, kind="stable")[:count])
        runs = np.split(top, np.flatnonzero(np.diff(top) > 1) + 1)
        runs = sorted(sorted(runs, key=lambda run: -total[run].sum())[:MAX_SPANS], key=lambda run: run[0])
        return [(self.times[run[0]], self.times[run[-1] + 1]) for run in runs]

    def top_band(self) -> tuple[float, float]:
        """The frequency band (low, high) in Hz with the largest weight."""
        top = int(self.weights.sum(axis=0).argmax())
        return self.frequencies[top], self.frequencies[top + 1]

    def summary(self) -> str:
        """For example "strongest evidence for jazz: 0:12-0:15, 0:20-0:21; 430-860 Hz"."""
        spans = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in self.top_spans())
        low, high = self.top_band()
        return f"strongest evidence for {self.genre}: {spans}; {low:.0f}-{high:.0f} Hz"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with six significant digits, without the log-mel frames."""
        values = {
            "genre": self.genre,
            "summary": self.summary(),
            "top_spans": self.top_spans(),
            "top_band": self.top_band(),
            "examined": self.examined,
            "times": self.times,
            "frequencies": self.frequencies,
            "weights": self.weights.astype(float).tolist(),
        }
        return cast(dict[str, Any], rounded(values))


def explain(
    probability: Callable[[Array, int], Array], frames: Array, prediction: Prediction, genre: str, config: FeatureConfig
) -> Explanation:
    """Occlude each cell of each window of a track's log-mel `frames` (n_frames, n_mels_kept) in dB.

    `probability` maps variants (n, n_frames, n_mels_kept) of a log-mel window, and the window's index, to the
    probability (n,) of `genre`.
    """
    n_cells = max(1, round(prediction.duration / CELL_SECONDS))
    time_cells, band_cells = _cell_indices(len(frames), n_cells, config)
    groups = band_cells == np.arange(BAND_GROUPS)[:, None]
    drops, counts = np.zeros((n_cells, BAND_GROUPS)), np.zeros((n_cells, 1))
    starts, per_frame = window_starts(len(frames), config), prediction.duration / len(frames)
    examined = []
    for i in _choose_windows(len(starts), prediction, genre):
        start = starts[i]
        window = normalize_window(frames, start, config)
        if not np.ptp(window):
            continue
        examined.append((start * per_frame, (start + len(window)) * per_frame))
        cell_of_frame = time_cells[start : start + len(window)]
        cells = np.unique(cell_of_frame)
        masks = (cell_of_frame == cells[:, None])[:, None, :, None] & groups[:, None, :]
        masks = masks.reshape(-1, *window.shape)
        variants = np.concatenate([window[None], np.where(masks, window.mean(), window)])
        log_odds = _log_odds(probability(variants, i))
        drops[cells] += (log_odds[0] - log_odds[1:]).reshape(len(cells), BAND_GROUPS)
        counts[cells] += 1
    levels = np.full(n_cells, -np.inf)
    np.maximum.at(levels, time_cells, frames.max(axis=1))
    drops[levels < levels.max() - SILENT_DB] = 0
    return Explanation(
        prediction=prediction,
        genre=genre,
        times=tuple(float(i * prediction.duration / n_cells) for i in range(n_cells + 1)),
        frequencies=group_edges(config),
        weights=(drops / np.maximum(1, counts)).astype(np.float32),
        log_mel=frames,
        examined=tuple(examined),
    )


def _choose_windows(count: int, prediction: Prediction, genre: str) -> list[int]:
    """All of a short track; else MAX_WINDOWS, evenly spread over those with this genre, or the most probable ones."""
    if count <= MAX_WINDOWS:
        return list(range(count))
    segments = prediction.segments
    order = sorted(range(count), key=lambda i: segments[i].probabilities.get(genre, 0.0), reverse=True)
    n_candidates = sum(segment.top_genre == genre for segment in segments)
    candidates = sorted(order[: max(n_candidates, MAX_WINDOWS)])
    step = (len(candidates) - 1) / (MAX_WINDOWS - 1)
    return [candidates[math.floor(i * step + 0.5)] for i in range(MAX_WINDOWS)]  # as JavaScript rounds


def occlude(frames: Array, cells: npt.NDArray[np.bool_], config: FeatureConfig) -> Array:
    """Log-mel windows of a track with some cells of an explanation occluded, given as a mask (n, m)."""
    time_cells, band_cells = _cell_indices(len(frames), len(cells), config)
    mask = cells[time_cells][:, band_cells]
    windows = []
    for start in window_starts(len(frames), config):
        window = normalize_window(frames, start, config)
        windows.append(np.where(mask[start : start + len(window)], window.mean(), window))
    return np.stack(windows)


def _cell_indices(
    n_frames: int, n_cells: int, config: FeatureConfig
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The cell index of each frame (n_frames,), and the one of each mel band (n_mels_kept,)."""
    bands = np.arange(config.n_mels_kept) * BAND_GROUPS // config.n_mels_kept
    return np.arange(n_frames) * n_cells // n_frames, bands


def _log_odds(probability: Array) -> npt.NDArray[np.float64]:
    """Log-odds, which stay sensitive where probabilities saturate."""
    clipped = np.clip(np.float64(probability), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped / (1 - clipped)))


def group_edges(config: FeatureConfig) -> tuple[float, ...]:
    """Edges (BAND_GROUPS + 1,) of the groups of mel bands, in Hz."""
    low, high = hz_to_mel([config.fmin, config.fmax])
    firsts = np.array([-(-group * config.n_mels_kept // BAND_GROUPS) for group in range(BAND_GROUPS + 1)])
    mels = low + (high - low) * (firsts + 0.5 * (firsts > 0)) / (config.n_mels + 1)
    return tuple(float(f) for f in mel_to_hz(mels))


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
