"""What a worker process of the server does: the bytes of a file -> a prediction."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from musicclass import audio
from musicclass.classifier import Classifier
from musicclass.config import AudioConfig
from musicclass.errors import AudioError
from musicclass.explain import Explanation
from musicclass.features import Array, TrackFeatures
from musicclass.prediction import Prediction, rounded
from musicclass.workers import TaskFailure, TaskFn, task_failure

PEAK_SAMPLES = 441  # at the model's 22,050 Hz: 50 peaks in a second
IMAGE_WIDTH = 1200  # columns of a log-mel image, at most
WARM_UP = ""  # the first item of a worker


@dataclass(frozen=True)
class PredictRequest:
    """A file, and what to compute."""

    data: bytes
    name: str  # for messages only, never a path
    waveform_peaks: int = 0
    explain: bool = False
    genre: str | None = None  # to explain in place of the top genre
    embedding: bool = False
    features: TrackFeatures | None = None  # of the file, where they are known; `data` isn't decoded then


@dataclass(frozen=True)
class PredictResponse(Prediction):
    """A prediction with what else was requested."""

    seconds_lost: float = field()  # required: it is sent although it is 0
    embedding: list[float] | None = None  # type: ignore[assignment]  # (200,), see tagger.py
    waveform_peaks: list[float] | None = None  # evenly spread, 0 to 1
    explanation: dict[str, Any] | None = None  # as Explanation.to_dict gives it, and `log_mel`, a grey image


def make_request_task(
    model: str, min_confidence: float | None, max_seconds: float, on_progress: Callable[[float], None]
) -> TaskFn:
    """The task of a worker: PredictRequest -> what `predict` returns or TaskFailure; WARM_UP -> None."""
    classifier = Classifier.load(model, AudioConfig(max_seconds=max_seconds, max_step_seconds=0), min_confidence)

    def predict_one(request: PredictRequest | str) -> tuple[PredictResponse, TrackFeatures] | TaskFailure | None:
        try:
            return predict(classifier, request, on_progress) if isinstance(request, PredictRequest) else None
        except AudioError as error:
            return task_failure(error)

    return predict_one


def predict(
    classifier: Classifier, request: PredictRequest, on_progress: Callable[[float], None]
) -> tuple[PredictResponse, TrackFeatures]:
    """The prediction of `Classifier.predict` and what else was requested, and the track's features.

    Raises AudioError.
    """
    features, peaks, lost = classifier.model.features, WaveformPeaks(), list[float]()
    source = io.BytesIO(request.data)
    source.name = request.name  # messages of errors begin with it

    def observed() -> Iterator[Array]:
        for block in audio.stream(source, features.sample_rate, classifier.limits, lost.append):
            yield block
            if request.waveform_peaks:
                peaks.add(block)
            on_progress(min(1.0, source.tell() / len(request.data)))

    track = request.features or classifier.track_features(observed())._replace(seconds_lost=sum(lost, 0.0))
    prediction = classifier.predict_features(track, request.name)
    explanation = None
    if request.explain:
        explained = classifier.explain_features(track, prediction, request.genre)
        explanation = explained.to_dict() | {"log_mel": _log_mel_image(explained)}
    waveform_peaks = peaks.spread(request.waveform_peaks) if request.waveform_peaks else None
    embedding = prediction.embedding if request.embedding else None
    fields = vars(rounded(prediction)) | {"embedding": None if embedding is None else embedding.tolist()}
    return PredictResponse(**fields, waveform_peaks=waveform_peaks, explanation=explanation), track


class WaveformPeaks:
    """The maximum of every PEAK_SAMPLES samples of a waveform that comes in blocks."""

    def __init__(self) -> None:
        self._peaks: list[Array] = []
        self._rest = np.zeros(0, np.float32)

    def add(self, block: Array) -> None:
        """Add samples (n,)."""
        samples = np.concatenate([self._rest, np.abs(block)])
        whole = len(samples) // PEAK_SAMPLES * PEAK_SAMPLES
        self._peaks.append(samples[:whole].reshape(-1, PEAK_SAMPLES).max(axis=1))
        self._rest = samples[whole:]

    def spread(self, count: int) -> list[float]:
        """At most `count` peaks, each the maximum of its share of the waveform."""
        rest = [self._rest.max()] if len(self._rest) else []
        peaks = np.concatenate([*self._peaks, rest])
        starts = np.linspace(0, len(peaks), min(count, len(peaks)), endpoint=False).astype(int)
        values: list[float] = np.maximum.reduceat(peaks, starts).astype(float).round(3).tolist()
        return values


def _log_mel_image(explanation: Explanation) -> dict[str, Any]:
    """The log-mel frames as a grey image: bytes in base64, row by row, the highest band first; 0 is -80 dB."""
    frames = explanation.log_mel
    width = min(IMAGE_WIDTH, len(frames))
    columns = np.maximum.reduceat(frames, np.arange(width) * len(frames) // width, axis=0)
    grey = np.clip((columns - columns.max()) / 80 + 1, 0, 1).T[::-1]
    data = base64.b64encode((grey * 255).astype(np.uint8).tobytes()).decode()
    return {"width": width, "height": len(grey), "data": data}
