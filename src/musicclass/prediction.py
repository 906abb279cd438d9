"""Prediction and Segment: the schema of results in Python, JSON, tables and the HTTP API."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from musicclass.text import percent

if TYPE_CHECKING:
    from musicclass.features import Array

UNKNOWN = "unknown"
DIGITS = 6  # significant ones, of numbers in JSON and tables
OOD_THRESHOLD = 0.5  # lower familiarity means out of distribution


@dataclass(frozen=True)
class Segment:
    """A part of a track. If it is silent, genres are None, scores 0 and probabilities empty.

    `top_genre` is that of the most probable path over the track (see windows.py), so a segment among those of another
    genre needs clear evidence of its own.
    """

    start: float  # seconds
    end: float  # seconds
    genre: str | None  # "unknown" where familiarity is below 0.5 or, with `min_confidence`, confidence below that
    top_genre: str | None  # on the most probable path of genres over the track
    confidence: float  # the calibrated probability of `top_genre`
    familiarity: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """The genre of one track."""

    file: str | None  # None for a waveform
    genre: str  # "unknown" where familiarity is below 0.5 or, with `min_confidence`, confidence below that
    top_genre: str  # the most probable genre
    confidence: float  # the calibrated probability of `top_genre`
    familiarity: float  # in-distribution score, 0 to 1; below 0.5: out of distribution, unlike the training data
    probabilities: dict[str, float]  # of every genre, most probable first; they sum to 1
    duration: float  # seconds of audio that were decoded
    segments: tuple[Segment, ...]
    model: str
    tags: dict[str, float]  # probabilities of the tags that stand out, most characteristic first; see tagger.py
    seconds_lost: float = 0.0  # by damage, or missing at the end; the rest was analysed
    embedding: Array | None = field(default=None, repr=False, compare=False)  # (200,), see tagger.py; not in JSON

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with DIGITS significant digits, without the embedding."""
        values: dict[str, Any] = rounded(asdict(replace(self, embedding=None)))
        del values["embedding"]
        return values

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as one JSON object."""
        return json.dumps(self.to_dict(), indent=indent)

    def summary(self) -> str:
        """For example "jazz: confidence 71%, familiarity 0.93", or "unknown, closest to jazz: …" with the reason."""
        unfamiliar = " (unlike the training data)" if self.familiarity < OOD_THRESHOLD else ""
        unsure = " (too low)" if self.genre == UNKNOWN and not unfamiliar else ""
        name = f"{UNKNOWN}, closest to {self.top_genre}" if self.genre == UNKNOWN else self.genre
        confidence = f"confidence {percent(self.confidence)}{unsure}"
        return f"{name}: {confidence}, familiarity {self.familiarity:.2f}{unfamiliar}"


def is_in_distribution(familiarity: float, confidence: float, min_confidence: float | None) -> bool:
    """Whether to predict a genre instead of "unknown": by familiarity or, if given, by `min_confidence` alone."""
    return familiarity >= OOD_THRESHOLD if min_confidence is None else confidence >= min_confidence


def rounded(value: Any) -> Any:
    """The value with DIGITS significant digits in the numbers of its dictionaries, lists and dataclasses."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rounded(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **rounded(vars(value)))
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
