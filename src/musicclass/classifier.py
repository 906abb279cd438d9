"""File or waveform -> Prediction. This is the whole way, one line for each step:

predict: audio.stream -> features.log_mel_of_blocks -> track_windows -> network -> Prediction
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicclass import audio
from musicclass.bundle import Bundle, load_bundle
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import SilentError
from musicclass.features import Array, log_mel_of_blocks, mfcc, scale_window, window_starts
from musicclass.prediction import Prediction, Segment, softmax, track_probabilities

BATCH = 32  # windows at once; a constant, so that an answer never depends on what else is asked


class Classifier:
    """Tells the genre of tracks, one at a time; may be used from several threads."""

    def __init__(self, bundle: Bundle, limits: AudioConfig | None = None):
        self.bundle = bundle
        self.genres = bundle.genres
        self.limits = limits or AudioConfig()
        self._session = bundle.session()
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def load(cls, source: str | Path = "gtzan", limits: AudioConfig | None = None) -> Classifier:
        """The classifier of a bundle's folder, or of one that ships, by its name. Raises BundleError."""
        return cls(load_bundle(source), limits)

    def predict(self, source: audio.Source) -> Prediction:
        """The genre of a file, by its path or as an open binary file.

        Raises AudioError (see errors.py) when it can't be used.
        """
        blocks = audio.stream(source, self.bundle.features.sample_rate, self.limits)
        name = audio.source_name(source)
        file = os.fspath(source) if isinstance(source, str | os.PathLike) else name
        return self._predict_blocks(blocks, name, file)

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
        return self._predict_blocks(audio.resample(blocks, sample_rate, rate, name, self.limits), name, file=None)

    def predict_log_mel(self, frames: Array, duration: float, name: str, file: str | None = None) -> Prediction:
        """The genre of log-mel frames (n_frames, n_bands), in dB, of `duration` seconds; `name` is for messages."""
        windows = track_windows(frames, self.bundle.features)
        heard = np.array([window.any() for window in windows])
        if not heard.any():
            raise SilentError(f"{name}: nothing but silence; check how it was recorded or exported")
        logits = self._logits(windows[heard])
        probabilities = track_probabilities(logits)
        order = np.argsort(-probabilities, kind="stable")
        ranked = {self.genres[i]: float(probabilities[i]) for i in order}
        genre = next(iter(ranked))
        segments = tuple(self._segments(heard, softmax(logits), duration))
        return Prediction(file, genre, ranked[genre], ranked, duration, segments, self.bundle.name)

    def _predict_blocks(self, blocks: Iterable[Array], name: str, file: str | None) -> Prediction:
        samples = 0

        def counted() -> Iterator[Array]:
            nonlocal samples
            for block in blocks:
                samples += len(block)
                yield block

        frames = log_mel_of_blocks(counted(), self.bundle.features)
        return self.predict_log_mel(frames, samples / self.bundle.features.sample_rate, name, file)

    def _logits(self, windows: Array) -> Array:
        batches = [windows[i : i + BATCH] for i in range(0, len(windows), BATCH)]
        return np.concatenate([self._session.run(None, {self._input: batch})[0] for batch in batches])

    def _segments(
        self, heard: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float64], duration: float
    ) -> Iterator[Segment]:
        """The time line in equal parts, each told by the window that it lies in."""
        rows, step = iter(probabilities), duration / len(heard)
        for i, sounds in enumerate(heard):
            row = next(rows) if sounds else np.zeros(0)
            best = int(row.argmax()) if sounds else -1
            yield Segment(
                start=i * step,
                end=(i + 1) * step,
                genre=self.genres[best] if sounds else None,
                confidence=float(row[best]) if sounds else 0.0,
                probabilities=dict(zip(self.genres, map(float, row), strict=False)),
            )


def track_windows(frames: Array, config: FeatureConfig) -> Array:
    """The windows that a track's log-mel frames (n_frames, n_bands) are heard in, as MFCCs.

    Shape (n_windows, n, n_mfcc), with n = config.window_frames, or n_frames where that is less.
    Silent windows (nothing within top_db of what is around them) are all zeros.
    """
    scaled = (scale_window(frames, start, config) for start in window_starts(len(frames), config))
    return np.stack([mfcc(window if np.ptp(window) else np.zeros_like(window), config.n_mfcc) for window in scaled])
