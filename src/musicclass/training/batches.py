"""Log-mel frames of tracks -> batches of augmented windows for training, and the windows of whole tracks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from musicclass.config import Config, FeatureConfig
from musicclass.datasets import Dataset, Track
from musicclass.errors import DatasetError
from musicclass.features import Array, mfcc
from musicclass.progress import ProgressFn, no_progress
from musicclass.training import augment
from musicclass.training.ood import Floats, Ints
from musicclass.windows import mfcc_windows

SHIFTED_WINDOWS_PER_TRACK = 15  # for LDA


@dataclass(frozen=True, eq=False)
class LabelledTracks:
    """Tracks with their log-mel frames in dB."""

    genres: tuple[str, ...]
    tracks: tuple[Track, ...]
    frames: dict[str, Array]  # by track id: (n_frames, n_mels_kept)

    @classmethod
    def load(
        cls, dataset: Dataset, ids: Iterable[str], features: FeatureConfig, progress: ProgressFn = no_progress
    ) -> LabelledTracks:
        """The tracks of a data set with these ids. Each file that can't be used is skipped with a warning."""
        wanted = set(ids)
        tracks = [track for track in dataset.tracks if track.id in wanted]
        frames = {track.id: x for track, x in dataset.iter_features(progress(tracks, "Features"), features)}
        return cls(dataset.genres, tuple(track for track in tracks if track.id in frames), frames)

    def subset(self, ids: Iterable[str], purpose: str) -> LabelledTracks:
        """Those with these ids. Raises DatasetError when none of them can be used."""
        wanted = set(ids)
        tracks = tuple(track for track in self.tracks if track.id in wanted)
        if not tracks:
            raise DatasetError(f"no usable track for {purpose}; check the data set and its split")
        return replace(self, tracks=tracks)

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
        return [self.frames[track.id] for track in self.tracks]


class WindowBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of random crops.

    Batch i of epoch e is the same in every run with the same seed, so an interrupted run can resume.
    """

    def __init__(self, tracks: LabelledTracks, config: Config):
        super().__init__()
        self.frames, self.config, self.epoch = tracks.log_mel, config, 0
        self.targets = np.eye(len(tracks.genres), dtype=np.float32)[tracks.labels]

    def __len__(self) -> int:
        return math.ceil(len(self.frames) * self.config.training.crops_per_track / self.config.training.batch_size)

    def _choose(self, index: int) -> tuple[Ints, augment.Rng]:
        """The tracks (batch,) of a batch, and the generator for its augmentation."""
        settings = self.config.training
        order = np.random.default_rng([settings.seed, self.epoch])
        tracks = np.concatenate([order.permutation(len(self.frames)) for _ in range(settings.crops_per_track)])
        chosen = tracks[index * settings.batch_size :][: settings.batch_size]
        return chosen, np.random.default_rng([settings.seed, self.epoch, index])

    def _crop(self, chosen: Ints, rng: augment.Rng) -> Array:
        config = self.config
        return np.stack([augment.random_crop(self.frames[i], config.features, config.augment, rng) for i in chosen])

    def _mfcc(self, windows: Array, rng: augment.Rng) -> Array:
        settings = self.config.augment
        augmented = augment.mask(augment.random_eq_and_noise(windows, settings, rng), settings, rng)
        return mfcc(augmented, self.config.features.n_mfcc)


class LabelledBatches(WindowBatches):
    """Augmented MFCC windows (batch, n_frames, n_mfcc), with one-hot targets (batch, n_genres)."""

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen, rng = self._choose(index)
        windows = self._crop(chosen, rng)
        windows, targets = augment.mixup(windows, self.targets[chosen], self.config.augment.mixup, rng)
        return self._mfcc(windows, rng), targets


class ContrastiveBatches(WindowBatches):
    """Two augmented MFCC windows of each track (2 * batch, n_frames, n_mfcc), with the tracks' indices (2 * batch,)."""

    def __getitem__(self, index: int) -> tuple[Array, Ints]:
        chosen, rng = self._choose(index)
        pairs = np.concatenate([chosen, chosen])
        return self._mfcc(self._crop(pairs, rng), rng), pairs


class WindowedTracks:
    """The MFCC windows of whole tracks, as at prediction time, without the silent ones."""

    def __init__(self, windows: Iterable[Array]):
        self.windows = [_drop_silent(item) for item in windows]  # (n_windows, n_frames, n_mfcc) for each track

    @classmethod
    def of(cls, tracks: LabelledTracks, features: FeatureConfig) -> WindowedTracks:
        """All windows of each track."""
        return cls(mfcc_windows(frames, features) for frames in tracks.log_mel)

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


def _drop_silent(windows: Array) -> Array:
    """The windows that aren't silent; one of them where all are."""
    sounding = windows.any(axis=(1, 2))
    return windows[sounding] if sounding.any() else windows[:1]
