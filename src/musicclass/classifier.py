"""Audio -> Prediction: the whole pipeline, step by step.

audio.stream             file -> mono samples at 22,050 Hz
features.track_features  samples -> log-mel frames and, for models that use the tagger, embeddings of patches of 3 s
windows.extract_windows  both of these, then frames -> normalized windows of 10 s with their embeddings
Classifier.score         windows -> MFCCs -> network -> calibrated probabilities and familiarity (model.onnx)
Classifier.predict       all of these, and the most probable path of genres over the windows -> Prediction
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass import audio, tagger
from musicclass.config import AudioConfig
from musicclass.explain import Explanation, explain
from musicclass.features import Array, TrackFeatures, track_features
from musicclass.prediction import UNKNOWN, Prediction, Segment, is_in_distribution
from musicclass.saved_model import DEFAULT_MODEL, SavedModel, load_model
from musicclass.windows import (
    TrackWindows,
    check_sound,
    extract_windows,
    features_of_file,
    most_probable_path,
    windows_of_track,
)


class TrackScores(NamedTuple):
    """The outputs of model.onnx for one track."""

    probabilities: Array  # (n_genres,), calibrated; they sum to 1
    familiarity: float  # in-distribution score, 0 to 1
    window_probabilities: Array  # (n_windows, n_genres); all zeros for silent windows
    window_familiarity: Array  # (n_windows,)


class Classifier:
    """Predicts the genre of tracks. Thread-safe."""

    def __init__(self, model: SavedModel, limits: AudioConfig | None = None, min_confidence: float | None = None):
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence must be between 0 and 1, not {min_confidence}")
        self.model = model
        self.genres = model.genres
        self.limits = limits or AudioConfig()
        self.min_confidence = min_confidence
        self._session = model.create_session()
        if model.uses_tagger:
            tagger.warn_if_missing()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by the folder of its model, which another process loads."""
        return Classifier.load, (self.model.path.resolve(), self.limits, self.min_confidence)

    @classmethod
    def load(
        cls, source: str | Path = DEFAULT_MODEL, limits: AudioConfig | None = None, min_confidence: float | None = None
    ) -> Classifier:
        """Load a saved model from its folder, or a pretrained model by its name. Raises ModelError.

        Predictions are "unknown" where familiarity is below 0.5 or, with `min_confidence`, where confidence is below
        that instead: 0 always predicts a genre. Raises ValueError if it is not between 0 and 1.
        """
        return cls(load_model(source), limits, min_confidence)

    def predict(self, source: audio.Source, sampled: bool = False) -> Prediction:
        """Predict the genre of a file, given by its path or as an open binary file.

        With `sampled`, only a few windows of a long track are decoded, where its format allows seeking. Raises
        AudioError (see errors.py) when the file can't be used.
        """
        track = extract_windows(source, self.model.features, self.limits, sampled, self.model.uses_tagger)
        return self.predict_windows(track, _file_name(source))

    def predict_windows(self, track: TrackWindows, file: str | None = None) -> Prediction:
        """Predict the genre of a track's windows, not all of which are silent."""
        scores = self.score(track.windows, track.embeddings)
        order = np.argsort(-scores.probabilities, kind="stable")
        probabilities = {self.genres[i]: float(scores.probabilities[i]) for i in order}
        top_genre, confidence = next(iter(probabilities.items()))
        times = track.times.round(6).tolist()
        patches = track.patches
        by_window = scores.window_probabilities
        rows = zip(times, by_window, most_probable_path(by_window), scores.window_familiarity.tolist(), strict=True)
        return Prediction(
            file=file,
            genre=self._genre(top_genre, confidence, scores.familiarity),
            top_genre=top_genre,
            confidence=confidence,
            familiarity=scores.familiarity,
            probabilities=probabilities,
            duration=track.duration,
            segments=tuple(self._segment(start, end, *row) for (start, end), *row in rows),
            model=self.model.name,
            tags=tagger.characteristic_tags(patches),
            seconds_lost=round(track.seconds_lost, 3),
            embedding=patches.embeddings.mean(axis=0) if patches else None,
        )

    def score(self, windows: Array, embeddings: Array | None = None) -> TrackScores:
        """Run model.onnx on the log-mel windows (n_windows, n, n_mels_kept) of a track.

        `embeddings` (n_windows, EMBEDDING_SIZE) are for models that use the tagger; without them, or where all are
        zeros, these predict from the windows alone. Raises ModelError when the graph fails.
        """
        return TrackScores(*self.model.run(self._session.run, windows, embeddings))

    def _segment(self, start: float, end: float, row: Array, index: int, familiarity: float) -> Segment:
        """The segment of a window with probabilities `row` whose genre on the most probable path is `index`."""
        if not row.any():
            return Segment(start, end, genre=None, top_genre=None, confidence=0.0, familiarity=0.0, probabilities={})
        top_genre, confidence = self.genres[index], float(row[index])
        probabilities = dict(zip(self.genres, row.tolist(), strict=True))
        genre = self._genre(top_genre, confidence, familiarity)
        return Segment(start, end, genre, top_genre, confidence, familiarity, probabilities)

    def _genre(self, top_genre: str, confidence: float, familiarity: float) -> str:
        return top_genre if is_in_distribution(familiarity, confidence, self.min_confidence) else UNKNOWN

    def predict_waveform(self, waveform: npt.NDArray[np.floating | np.integer], sample_rate: int) -> Prediction:
        """Predict the genre of a waveform (n,) or (n, channels) at `sample_rate` (Hz): floats in [-1, 1], int16, int32.

        Raises AudioError as `predict` does, and ValueError for other samples.
        """
        blocks = audio.stream_waveform(waveform, sample_rate, self.model.features.sample_rate, self.limits)
        return self.predict_features(self.track_features(blocks))

    def track_features(self, blocks: Iterable[Array]) -> TrackFeatures:
        """The features that the model needs of a waveform in blocks (n,) at `model.features.sample_rate`."""
        return track_features(blocks, self.model.features, self.model.uses_tagger)

    def predict_features(self, track: TrackFeatures, file: str | None = None) -> Prediction:
        """Predict the genre of a track from its features. Raises SilentError."""
        return self.predict_windows(check_sound(windows_of_track(track, self.model.features)), file)

    def explain(self, source: audio.Source, genre: str | None = None) -> Explanation:
        """Predict the genre of a file, and find the times and frequencies that its top genre, or `genre`, depends on.

        Raises AudioError as `predict` does, and ValueError if the model doesn't have that genre.
        """
        if genre is not None and genre not in self.genres:
            raise ValueError(f"{self.model.name} has no genre {genre!r}; it has {', '.join(self.genres)}")
        track = features_of_file(source, self.model.features, self.limits, self.model.uses_tagger)
        return self.explain_features(track, self.predict_features(track, _file_name(source)), genre)

    def explain_features(self, track: TrackFeatures, prediction: Prediction, genre: str | None = None) -> Explanation:
        """`explain` for a track's features and their prediction; the embeddings are not occluded."""
        genre = genre or prediction.top_genre
        index = self.genres.index(genre)
        embeddings = windows_of_track(track, self.model.features).embeddings

        def probability(windows: Array, i: int) -> Array:
            embedding = np.broadcast_to(embeddings[i], (len(windows), tagger.EMBEDDING_SIZE))
            return self.score(windows, embedding).window_probabilities[:, index]

        return explain(probability, track.log_mel, prediction, genre, self.model.features)


def _file_name(source: audio.Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else audio.source_name(source)
