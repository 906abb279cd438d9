"""File or waveform -> Prediction. This is the whole way, one line for each step:

predict: audio.stream -> features.log_mel_of_blocks -> track_windows -> network -> confidence -> Prediction
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from musicclass import audio
from musicclass.bundle import Bundle, load_bundle
from musicclass.confidence import Floats
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import SilentError
from musicclass.features import Array, log_mel_of_blocks, mfcc, scale_window, window_starts
from musicclass.prediction import UNKNOWN, Prediction, Segment

if TYPE_CHECKING:
    from musicclass.explain import Explanation

BATCH = 32  # windows at once; a constant, so that an answer never depends on what else is asked


class Classifier:
    """Tells the genre of tracks, one at a time; may be used from several threads."""

    def __init__(self, bundle: Bundle, limits: AudioConfig | None = None, min_confidence: float | None = None):
        self.bundle = bundle
        self.min_confidence = bundle.confidence.min_confidence if min_confidence is None else min_confidence
        self.genres = bundle.genres
        self.limits = limits or AudioConfig()
        self._session = bundle.session()
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def load(
        cls, source: str | Path = "gtzan", limits: AudioConfig | None = None, min_confidence: float | None = None
    ) -> Classifier:
        """The classifier of a bundle's folder, or of one that ships, by its name. Raises BundleError.

        Below `min_confidence`, by default the bundle's own, a genre is told as unknown; 0 always names one.
        """
        return cls(load_bundle(source), limits, min_confidence)

    def predict(self, source: audio.Source) -> Prediction:
        """The genre of a file, by its path or as an open binary file.

        Raises AudioError (see errors.py) when it can't be used.
        """
        return self.predict_log_mel(*self._listen(source))

    def explain(self, source: audio.Source, genre: str | None = None) -> Explanation:
        """Which seconds and frequencies of a file its best guess, or another `genre`, rests on; with the prediction.

        Raises AudioError as `predict` does, and ValueError for a genre that the model doesn't know.
        """
        from musicclass.explain import explain

        if genre is not None and genre not in self.genres:
            raise ValueError(f"{self.bundle.name} doesn't know {genre!r}; it knows {', '.join(self.genres)}")
        heard = self._listen(source)
        return explain(self, heard[0], self.predict_log_mel(*heard), genre)

    def predict_waveform(self, waveform: npt.NDArray[np.floating], sample_rate: int) -> Prediction:
        """The genre of a waveform (n,) or (n, channels), floating point within -1..1, at `sample_rate` (Hz).

        Raises AudioError as `predict` does, and ValueError for samples that aren't floating point.
        """
        waveform = np.asarray(waveform)
        if waveform.ndim not in (1, 2) or not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(f"needs floats of shape (n,) or (n, channels), not {waveform.dtype} {waveform.shape}")
        cuts = range(0, len(waveform), audio.BLOCK_FRAMES)
        blocks = (waveform[start : start + audio.BLOCK_FRAMES].astype(np.float32) for start in cuts)
        name, rate = "<waveform>", self.bundle.features.sample_rate
        frames, duration = _log_mel(audio.resample(blocks, sample_rate, rate, name, self.limits), self.bundle.features)
        return self.predict_log_mel(frames, duration, name)

    def predict_log_mel(self, frames: Array, duration: float, name: str, file: str | None = None) -> Prediction:
        """The genre of log-mel frames (n_frames, n_bands), in dB, of `duration` seconds; `name` is for messages."""
        windows = track_windows(frames, self.bundle.features)
        heard = np.array([window.any() for window in windows])
        if not heard.any():
            raise SilentError(f"{name}: nothing but silence; check how it was recorded or exported")
        windows = windows[heard]
        logits = self._logits(windows)
        told = self.bundle.confidence.track(windows, logits)
        order = np.argsort(-told.probabilities, kind="stable")
        ranked = {self.genres[i]: float(told.probabilities[i]) for i in order}
        guess = next(iter(ranked))
        return Prediction(
            file=file,
            genre=self._named(guess, told.confidence),
            best_guess=guess,
            confidence=told.confidence,
            familiarity=told.familiarity,
            probabilities=ranked,
            duration=duration,
            segments=tuple(self._segments(heard, told.by_window, told.sure, duration)),
            model=self.bundle.name,
        )

    def _named(self, guess: str, confidence: float) -> str:
        return guess if confidence >= self.min_confidence else UNKNOWN

    def probabilities(self, windows: Array) -> Floats:
        """Calibrated probabilities (n_windows, n_genres) of MFCC windows (n_windows, n_frames, n_mfcc)."""
        return self.bundle.confidence.probabilities(self._logits(windows))

    def _listen(self, source: audio.Source) -> tuple[Array, float, str, str]:
        """Log-mel frames of a file, its duration in seconds, its name for messages, and its path or name."""
        name = audio.source_name(source)
        frames, duration = listen(source, self.bundle.features, self.limits)
        return frames, duration, name, os.fspath(source) if isinstance(source, str | os.PathLike) else name

    def _logits(self, windows: Array) -> Array:
        batches = [windows[i : i + BATCH] for i in range(0, len(windows), BATCH)]
        return np.concatenate([self._session.run(None, {self._input: batch})[0] for batch in batches])

    def _segments(
        self, heard: npt.NDArray[np.bool_], probabilities: Floats, confidence: Floats, duration: float
    ) -> Iterator[Segment]:
        """The time line in equal parts, each told by the window that it lies in."""
        rows, step = zip(probabilities, map(float, confidence), strict=True), duration / len(heard)
        for i, sounds in enumerate(heard):
            start, end = i * step, (i + 1) * step
            if not sounds:
                yield Segment(start, end, genre=None, best_guess=None, confidence=0.0, probabilities={})
                continue
            row, sure = next(rows)
            guess = self.genres[int(row.argmax())]
            shares = dict(zip(self.genres, map(float, row), strict=True))
            yield Segment(start, end, self._named(guess, sure), guess, sure, shares)


def listen(source: audio.Source, features: FeatureConfig, limits: AudioConfig | None = None) -> tuple[Array, float]:
    """Log-mel frames (n_frames, n_bands) of a file, in dB, and the seconds that were heard. Raises AudioError."""
    return _log_mel(audio.stream(source, features.sample_rate, limits), features)


def _log_mel(blocks: Iterable[Array], features: FeatureConfig) -> tuple[Array, float]:
    samples = 0

    def counted() -> Iterator[Array]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    frames = log_mel_of_blocks(counted(), features)
    return frames, samples / features.sample_rate


def track_windows(frames: Array, config: FeatureConfig) -> Array:
    """The windows that a track's log-mel frames (n_frames, n_bands) are heard in, as MFCCs.

    Shape (n_windows, n, n_mfcc), with n = config.window_frames, or n_frames where that is less.
    Silent windows (nothing within top_db of what is around them) are all zeros.
    """
    scaled = (scale_window(frames, start, config) for start in window_starts(len(frames), config))
    return np.stack([mfcc(window if np.ptp(window) else np.zeros_like(window), config.n_mfcc) for window in scaled])
