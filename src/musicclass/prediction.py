"""What a caller gets back: a Prediction, with its Segments along the time line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from musicclass.confidence import KNOWN

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Segment:
    """A stretch of the track; `genre` and `best_guess` are None, and `confidence` 0, where it is silent."""

    start: float  # seconds
    end: float  # seconds
    genre: str | None  # "unknown" where it is unfamiliar or, with `min_confidence`, less sure than that
    best_guess: str | None
    confidence: float
    probabilities: dict[str, float]  # empty where it is silent


@dataclass(frozen=True)
class Prediction:
    """The genre of one track."""

    file: str | None  # None for a waveform
    genre: str  # "unknown" where the model isn't fit to say
    best_guess: str  # the most probable genre all the same
    confidence: float  # the probability of `best_guess`, lower where `familiarity` is below 0.5
    familiarity: float  # near 1: sound and answer are like those of known music; 0.5 at its edge; 0 far off
    probabilities: dict[str, float]  # every genre, most probable first; they sum to 1
    duration: float  # seconds that were heard
    segments: tuple[Segment, ...]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Plain, JSON-ready values."""
        return asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as one JSON object."""
        return json.dumps(self.to_dict(), indent=indent)


def in_words(prediction: Prediction) -> str:
    """Such as "jazz, 71% sure", or "unknown: unlike the music this model knows; best guess jazz"."""
    strange = "unlike the music this model knows" if prediction.familiarity < KNOWN else ""
    sure = f"{prediction.confidence:.0%} sure"
    if prediction.genre == UNKNOWN:
        return f"{UNKNOWN}: {strange or f'only {sure}'}; best guess {prediction.best_guess}"
    return f"{prediction.genre}, {sure}: {strange}" if strange else f"{prediction.genre}, {sure}"
