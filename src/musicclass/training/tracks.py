"""Tracks with their features and labels, and the windows of whole tracks."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from musicclass import tagger
from musicclass.config import Config, FeatureConfig
from musicclass.datasets import Dataset, Track
from musicclass.errors import DatasetError
from musicclass.features import Array, TrackFeatures, mfcc
from musicclass.progress import ProgressFn, no_progress
from musicclass.training import augment
from musicclass.training.ood import Floats, Ints
from musicclass.windows import mfcc_windows, windows_of_track

MIN_TRACKS, RELIABLE_TRACKS = 2, 5  # of a genre
SHIFTED_WINDOWS_PER_TRACK = 15  # for LDA
NO_EMBEDDING = np.zeros(tagger.EMBEDDING_SIZE, np.float32)


@dataclass(frozen=True, eq=False)
class LabelledTracks:
    """Tracks with their features."""

    genres: tuple[str, ...]
    tracks: tuple[Track, ...]
    features: dict[str, TrackFeatures]  # by track id

    @classmethod
    def load(
        cls, dataset: Dataset, ids: Iterable[str], config: Config, progress: ProgressFn = no_progress
    ) -> LabelledTracks:
        """The tracks of a data set with these ids. Each file that can't be used is skipped with a warning.

        Raises DatasetError when fewer than MIN_TRACKS of a genre can be used; warns of genres with less than
        RELIABLE_TRACKS.
        """
        wanted = set(ids)
        tracks = [track for track in dataset.tracks if track.id in wanted]
        bar = progress(tracks, "Features")
        features = {track.id: x for track, x in dataset.iter_features(bar, config.features, config.model.uses_tagger)}
        usable = tuple(track for track in tracks if track.id in features)
        counts = Counter(track.genre for track in usable)
        few = {genre: counts[genre] for genre in dataset.genres if counts[genre] < RELIABLE_TRACKS}
        if few:
            names = ", ".join(f"{genre} {count}" for genre, count in few.items())
            text = f"genres with few usable tracks for training: {names}"
            if min(few.values()) < MIN_TRACKS:
                raise DatasetError(f"{text}; add tracks of them, or set training.genres to the other genres")
            warnings.warn(f"{text}; expect a low recall with less than {RELIABLE_TRACKS}", stacklevel=2)
        return cls(dataset.genres, usable, features)

    def subset(self, ids: Iterable[str], purpose: str) -> LabelledTracks:
        """Those with these ids. Raises DatasetError when none of them can be used."""
        wanted = set(ids)
        tracks = tuple(track for track in self.tracks if track.id in wanted)
        if not tracks:
            raise DatasetError(f"no usable track for {purpose}; check the data set and its split")
        return replace(self, tracks=tracks)

    def subset_of(self, chosen: npt.NDArray[np.bool_]) -> LabelledTracks:
        """Those of `chosen` (n_tracks,)."""
        return replace(self, tracks=tuple(track for track, use in zip(self.tracks, chosen, strict=True) if use))

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def ids(self) -> list[str]:
        return [track.id for track in self.tracks]

    @property
    def labels(self) -> Ints:
        """Indices (n_tracks,) of the tracks' genres."""
        return np.array([self.genres.index(track.genre) for track in self.tracks], np.intp)

    @property
    def log_mel(self) -> list[Array]:
        """The frames, in the order of the tracks."""
        return [self.features[track.id].log_mel for track in self.tracks]

    @property
    def embeddings(self) -> Array:
        """The mean normalized embedding of each track's patches, at length 1 (n_tracks, EMBEDDING_SIZE); or zeros."""
        patches = self.patches
        means = [patches[track.id].mean(axis=0) if track.id in patches else NO_EMBEDDING for track in self.tracks]
        return tagger.unit_length(np.stack(means))

    @property
    def patches(self) -> dict[str, Array]:
        """The normalized embeddings (n_patches, EMBEDDING_SIZE) of those tracks that have any, by track id."""
        tracks = ((track.id, self.features[track.id].patches) for track in self.tracks)
        return {name: tagger.normalize(patches.embeddings) for name, patches in tracks if patches}

    def weights(self, label_weights: Sequence[float], balance: float) -> Floats:
        """Weights (n_tracks,), mean 1: by the confidence of labels, and `balance` of the way to equal genres."""
        grades = dict(zip(("high", "medium", "low"), label_weights, strict=True))
        weights = np.array([grades[track.confidence or "high"] for track in self.tracks], np.float64)
        totals = np.bincount(self.labels, weights, len(self.genres))
        weights /= np.maximum(totals, 1e-9)[self.labels] ** balance
        return np.asarray(weights / weights.mean())


class WindowedTracks:
    """The MFCC windows of whole tracks, as at prediction time, without the silent ones."""

    def __init__(self, windows: Iterable[Array], embeddings: Sequence[Array] = ()):
        windows = list(windows)
        kept = [_sounding(item) for item in windows]
        self.windows = [item[k] for item, k in zip(windows, kept, strict=True)]  # (n_windows, n_frames, n_mfcc) each
        self.embeddings = [item[k] for item, k in zip(embeddings, kept, strict=False)]  # (n_windows, EMBEDDING_SIZE)

    @classmethod
    def of(cls, tracks: LabelledTracks, features: FeatureConfig) -> WindowedTracks:
        """All windows of each track, with their embeddings."""
        windowed = [windows_of_track(tracks.features[track.id], features) for track in tracks.tracks]
        return cls((mfcc(item.windows, features.n_mfcc) for item in windowed), [item.embeddings for item in windowed])

    @classmethod
    def shifted(cls, tracks: LabelledTracks, config: Config) -> WindowedTracks:
        """Random crops at random pitch and tempo, without other augmentation; the same for the same seed."""
        rng, features = np.random.default_rng(config.training.seed), config.features
        settings = replace(config.augment, lowpass_prob=0, comb_filter_prob=0, noise_floor_prob=0, dynamic_range=0)
        crops = (
            [augment.random_crop(frames, features, settings, rng) for _ in range(SHIFTED_WINDOWS_PER_TRACK)]
            for frames in tracks.log_mel
        )
        return cls(mfcc(np.stack(windows), features.n_mfcc) for windows in crops)

    @classmethod
    def with_comb_filter(cls, tracks: LabelledTracks, features: FeatureConfig) -> WindowedTracks:
        """All windows of each track, and the same through a comb filter: the training distribution for OOD detection.

        Without the comb filter, any recording by two microphones would be out of distribution.
        """
        rng = np.random.default_rng(0)
        pairs = ((frames, augment.comb_filter(frames, features, rng)) for frames in tracks.log_mel)
        return cls(np.concatenate([mfcc_windows(frames, features) for frames in pair]) for pair in pairs)

    def predict(self, network: Callable[[Array], Array], batch_size: int = 64) -> list[Array]:
        """For each track, the output (n_windows, n) of a function of windows."""
        outputs: dict[int, Array] = {}
        for length in {windows.shape[1] for windows in self.windows}:
            chosen = [i for i, windows in enumerate(self.windows) if windows.shape[1] == length]
            stacked = np.concatenate([self.windows[i] for i in chosen])
            batches = [network(stacked[i : i + batch_size]) for i in range(0, len(stacked), batch_size)]
            ends = np.cumsum([len(self.windows[i]) for i in chosen])[:-1]
            outputs.update(zip(chosen, np.split(np.concatenate(batches), ends), strict=True))
        return [outputs[i] for i in range(len(self.windows))]


def mean_logits(by_window: Sequence[Array]) -> Floats:
    """The mean over windows of each track's logits: (n_tracks, n_genres)."""
    return np.stack([logits.astype(np.float64).mean(axis=0) for logits in by_window])


def _sounding(windows: Array) -> npt.NDArray[np.bool_]:
    """Which of the windows (n_windows,) aren't silent; the first one where all are."""
    sounding = np.asarray(windows.any(axis=(1, 2)), np.bool_)
    return sounding if sounding.any() else np.arange(len(windows)) == 0
