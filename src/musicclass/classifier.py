"""File or waveform -> Prediction. This is the whole way, one line for each step:

hear: audio.stream -> features.log_mel_of_blocks -> track_windows -> Heard
tell: Heard -> network -> confidence -> Prediction
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass import audio
from musicclass.bundle import Bundle, load_bundle
from musicclass.confidence import Floats, Told, is_known
from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import SilentError
from musicclass.features import Array, highest_frequency, log_mel_of_blocks, mfcc, scale_window, window_starts
from musicclass.prediction import UNKNOWN, Prediction, Segment

if TYPE_CHECKING:
    from musicclass.explain import Explanation

BATCH = 32  # windows at once; a constant, so that an answer never depends on what else is asked
FAST_WINDOWS = 4  # of a track that is heard in parts


class Heard(NamedTuple):
    """What a model asks about a track."""

    windows: Array  # (n_windows, n_frames, n_mfcc), MFCCs; all zeros where it is silent
    times: Floats  # (n_windows, 2), the part of the time line in seconds that each window tells
    duration: float  # seconds


class Classifier:
    """Tells the genre of tracks, one at a time; may be used from several threads."""

    def __init__(self, bundle: Bundle, limits: AudioConfig | None = None, min_confidence: float | None = None):
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence must be between 0 and 1, not {min_confidence}")
        self.bundle = bundle
        self.min_confidence = min_confidence
        self.genres = bundle.genres
        self.limits = limits or AudioConfig()
        self._session = bundle.session()
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def load(
        cls, source: str | Path = "gtzan", limits: AudioConfig | None = None, min_confidence: float | None = None
    ) -> Classifier:
        """The classifier of a bundle's folder, or of one that ships, by its name. Raises BundleError.

        A genre is unknown where the music is less familiar than 0.5, or, with `min_confidence`, where confidence is
        below that; 0 always names one. Raises ValueError for one that isn't between 0 and 1.
        """
        return cls(load_bundle(source), limits, min_confidence)

    def predict(self, source: audio.Source, fast: bool = False) -> Prediction:
        """The genre of a file, by its path or as an open binary file.

        With `fast`, of a long track only a few windows are decoded, where its format allows that. Raises AudioError
        (see errors.py) when it can't be used.
        """
        heard = hear(source, self.bundle.features, self.limits, fast)
        return self.tell(heard, audio.source_name(source), _path(source))

    def explain(self, source: audio.Source, genre: str | None = None) -> Explanation:
        """Which seconds and frequencies of a file its best guess, or another `genre`, rests on; with the prediction.

        Raises AudioError as `predict` does, and ValueError for a genre that the model doesn't know.
        """
        from musicclass.explain import explain

        if genre is not None and genre not in self.genres:
            raise ValueError(f"{self.bundle.name} doesn't know {genre!r}; it knows {', '.join(self.genres)}")
        frames, duration = _log_mel_of_file(source, self.bundle.features, self.limits)
        told = self.predict_log_mel(frames, duration, audio.source_name(source), _path(source))
        return explain(self, frames, told, genre)

    def predict_waveform(self, waveform: npt.NDArray[np.floating], sample_rate: int) -> Prediction:
        """The genre of a waveform (n,) or (n, channels), floating point within -1..1, at `sample_rate` (Hz).

        Raises AudioError as `predict` does, and ValueError for samples that aren't floating point.
        """
        waveform = np.asarray(waveform)
        if waveform.ndim not in (1, 2) or not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(f"needs floats of shape (n,) or (n, channels), not {waveform.dtype} {waveform.shape}")
        cuts = range(0, len(waveform), audio.BLOCK_FRAMES)
        blocks = (waveform[start : start + audio.BLOCK_FRAMES].astype(np.float32) for start in cuts)
        name, features = "<waveform>", self.bundle.features
        up_to = highest_frequency(features)
        heard = audio.resample(blocks, sample_rate, features.sample_rate, name, self.limits, up_to)
        frames, duration = log_mel_of(heard, features)
        return self.predict_log_mel(frames, duration, name)

    def predict_log_mel(self, frames: Array, duration: float, name: str, file: str | None = None) -> Prediction:
        """The genre of log-mel frames (n_frames, n_bands), in dB, of `duration` seconds; `name` is for messages."""
        return self.tell(whole_track(frames, duration, self.bundle.features), name, file)

    def tell(self, heard: Heard, name: str, file: str | None = None) -> Prediction:
        """The genre of what `hear` has heard; `name` is for messages. Raises SilentError."""
        sounds = np.array([window.any() for window in heard.windows])
        if not sounds.any():
            raise SilentError(f"{name}: nothing but silence; check how it was recorded or exported")
        windows = heard.windows[sounds]
        logits = self.logits(windows)
        told = self.bundle.confidence.track(windows, logits)
        order = np.argsort(-told.probabilities, kind="stable")
        ranked = {self.genres[i]: float(told.probabilities[i]) for i in order}
        guess = next(iter(ranked))
        return Prediction(
            file=file,
            genre=self._named(guess, told.confidence, told.familiarity),
            best_guess=guess,
            confidence=told.confidence,
            familiarity=told.familiarity,
            probabilities=ranked,
            duration=heard.duration,
            segments=tuple(self._segments(heard.times, sounds, told)),
            model=self.bundle.name,
        )

    def _named(self, guess: str, confidence: float, familiarity: float) -> str:
        return guess if is_known(familiarity, confidence, self.min_confidence) else UNKNOWN

    def probabilities(self, windows: Array) -> Floats:
        """Calibrated probabilities (n_windows, n_genres) of MFCC windows (n_windows, n_frames, n_mfcc)."""
        return self.bundle.confidence.probabilities(self.logits(windows))

    def logits(self, windows: Array) -> Array:
        """The network's answers (n_windows, n_genres) to MFCC windows (n_windows, n_frames, n_mfcc)."""
        batches = [windows[i : i + BATCH] for i in range(0, len(windows), BATCH)]
        return np.concatenate([self._session.run(None, {self._input: batch})[0] for batch in batches])

    def _segments(self, times: Floats, sounds: npt.NDArray[np.bool_], told: Told) -> Iterator[Segment]:
        rows = zip(told.by_window, told.familiar.tolist(), told.sure.tolist(), strict=True)
        for (start, end), sounding in zip(times.tolist(), sounds, strict=True):
            if not sounding:
                yield Segment(start, end, genre=None, best_guess=None, confidence=0.0, probabilities={})
                continue
            row, familiarity, confidence = next(rows)
            guess = self.genres[int(row.argmax())]
            shares = dict(zip(self.genres, map(float, row), strict=True))
            yield Segment(start, end, self._named(guess, confidence, familiarity), guess, confidence, shares)


def hear(source: audio.Source, features: FeatureConfig, limits: AudioConfig | None = None, fast: bool = False) -> Heard:
    """What a model asks about a file; with `fast`, a few windows of it, spread evenly. Raises AudioError."""
    if fast and (parts := audio.excerpts(source, features, FAST_WINDOWS, limits)):
        windows = [log_mel_of([part], features)[0][: features.window_frames] for _, part in parts.found]
        times = np.array([(start, start + features.window_seconds) for start, _ in parts.found])
        return Heard(np.concatenate([track_windows(window, features) for window in windows]), times, parts.duration)
    return whole_track(*_log_mel_of_file(source, features, limits), features)


def whole_track(frames: Array, duration: float, features: FeatureConfig) -> Heard:
    """Log-mel frames (n_frames, n_bands) of `duration` seconds as windows, each of which tells an equal part."""
    windows = track_windows(frames, features)
    starts = np.arange(len(windows)) * (duration / len(windows))
    ends = np.arange(1, len(windows) + 1) * (duration / len(windows))
    return Heard(windows, np.stack([starts, ends], axis=1), duration)


def _path(source: audio.Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else audio.source_name(source)


def _log_mel_of_file(source: audio.Source, features: FeatureConfig, limits: AudioConfig | None) -> tuple[Array, float]:
    return log_mel_of(audio.stream_for(source, features, limits), features)


def log_mel_of(blocks: Iterable[Array], features: FeatureConfig) -> tuple[Array, float]:
    """Log-mel frames (n_frames, n_bands) of blocks (n,), and the seconds that these last."""
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
