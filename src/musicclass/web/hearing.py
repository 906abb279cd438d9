"""What the server's worker processes do: the bytes of a file -> an answer, plain and JSON-ready."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicclass import audio
from musicclass.classifier import Classifier, log_mel_of
from musicclass.config import AudioConfig
from musicclass.errors import AudioError
from musicclass.explain import Explanation, explain
from musicclass.features import Array
from musicclass.library.run import failure
from musicclass.library.workers import Failure, Task

PEAK_SAMPLES = 441  # at the model's 22,050 Hz: 50 peaks a second
PICTURE_WIDTH = 1200  # columns at most of a log-mel picture
WARM_UP = "warm up"  # asked for when a worker starts
TOLD_STEP = 0.02  # share of a file between two words on how far it is


def _nobody(share: float) -> None:
    """What is told to nobody costs no message between processes."""


@dataclass(frozen=True)
class Ask:
    """A file, and what is wanted of it."""

    data: bytes
    name: str  # what the user calls it: for messages only, never a path
    peaks: int = 0  # so many, evenly spread, of the waveform
    explain: bool = False
    genre: str | None = None  # to explain, in place of the best guess
    followed: bool = False  # whether anyone wants to know how far it is


class _Upload(io.BytesIO):
    """A file in memory that tells how much of it has been read."""

    def __init__(self, ask: Ask, tell: Callable[[float], None]):
        super().__init__(ask.data)
        self.name, self._size, self._tell, self._told = ask.name, max(1, len(ask.data)), tell, 0.0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._progress()
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._progress()
        return count

    def _progress(self) -> None:
        share = self.tell() / self._size
        if self._told + TOLD_STEP <= share < 1:  # decoders look at the end first
            self._told = share
            self._tell(share)


def make_hearer(model: str, min_confidence: float | None, max_seconds: float, tell: Callable[[float], None]) -> Task:
    """Make the task of a worker: an Ask -> an answer, or a Failure."""
    classifier = Classifier.load(model, AudioConfig(max_seconds=max_seconds), min_confidence)

    def hear_one(ask: Ask | str) -> dict[str, Any] | Failure | None:
        if isinstance(ask, str):
            return None
        try:
            return answer(classifier, ask, tell if ask.followed else _nobody)
        except AudioError as error:
            return failure(error)

    return hear_one


def answer(classifier: Classifier, ask: Ask, tell: Callable[[float], None] = _nobody) -> dict[str, Any]:
    """The prediction of `Classifier.predict` as a dict, with what else was asked. Raises AudioError."""
    features = classifier.bundle.features
    source, peaks = _Upload(ask, tell), _Peaks()
    blocks = audio.stream_for(source, features, classifier.limits)
    frames, duration = log_mel_of(peaks.of(blocks) if ask.peaks else blocks, features)
    told = classifier.predict_log_mel(frames, duration, ask.name, ask.name)
    found = told.to_dict()
    if ask.peaks:
        found["peaks"] = peaks.spread(ask.peaks)
    if ask.explain:
        why = explain(classifier, frames, told, ask.genre)
        found["explanation"] = {"words": why.in_words(), **why.to_dict(), "log_mel": _picture(why)}
    return found


class _Peaks:
    """The loudest sample of each short stretch."""

    def __init__(self) -> None:
        self._parts: list[Array] = []

    def of(self, blocks: Iterable[Array]) -> Iterator[Array]:
        """The same blocks, looked at in passing."""
        rest = np.zeros(0, np.float32)
        for block in blocks:
            yield block
            rest = np.concatenate([rest, np.abs(block)])
            whole = len(rest) // PEAK_SAMPLES * PEAK_SAMPLES
            self._parts.append(rest[:whole].reshape(-1, PEAK_SAMPLES).max(axis=1))
            rest = rest[whole:]
        if len(rest):
            self._parts.append(rest.max(keepdims=True))

    def spread(self, count: int) -> list[float]:
        """At most `count` peaks, rounded."""
        peaks = np.concatenate(self._parts)
        starts = np.arange(min(count, len(peaks))) * len(peaks) // min(count, len(peaks))
        values: list[float] = np.maximum.reduceat(peaks, starts).round(3).tolist()
        return values


def _picture(why: Explanation) -> dict[str, Any]:
    """The log-mel frames as a grey picture: bytes, row by row, the highest band first, in base64."""
    frames = why.log_mel
    count = min(PICTURE_WIDTH, len(frames))
    columns = np.maximum.reduceat(frames, np.arange(count) * len(frames) // count, axis=0)
    grey = np.clip((columns - columns.max()) / 80 + 1, 0, 1).T[::-1]
    data = base64.b64encode((grey * 255).astype(np.uint8).tobytes()).decode()
    return {"width": count, "height": grey.shape[0], "data": data}
