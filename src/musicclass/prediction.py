"""What a caller gets back: a Prediction, with its Segments along the time line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.features import Array


@dataclass(frozen=True)
class Segment:
    """A stretch of the track; `genre` is None, and `confidence` 0, where it is silent."""

    start: float  # seconds
    end: float  # seconds
    genre: str | None
    confidence: float
    probabilities: dict[str, float]  # empty where it is silent


@dataclass(frozen=True)
class Prediction:
    """The genre of one track."""

    file: str | None  # None for a waveform
    genre: str
    confidence: float  # the probability of `genre`
    probabilities: dict[str, float]  # every genre, most probable first; they sum to 1
    duration: float  # seconds that were heard
    segments: tuple[Segment, ...]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Plain, JSON-ready values."""
        return asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(self.to_dict(), indent=indent)


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Probabilities (..., n_genres) of logits."""
    powers = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def track_probabilities(logits: Array) -> npt.NDArray[np.float64]:
    """A track's probabilities (n_genres,) from the logits (n_windows, n_genres) of its windows: their mean."""
    mean: npt.NDArray[np.float64] = softmax(logits).mean(axis=0)
    return mean
