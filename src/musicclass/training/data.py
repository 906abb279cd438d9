"""Tracks' log-mel frames, as windows that a network trains on and is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np

from musicclass.classifier import track_windows
from musicclass.confidence import Ints
from musicclass.config import Config, FeatureConfig
from musicclass.datasets import Dataset
from musicclass.features import Array, mfcc
from musicclass.printing import progress
from musicclass.training import augment

SHIFTED = 15  # windows of each track at another pitch and tempo


def load_frames(dataset: Dataset, ids: Iterable[str], config: FeatureConfig) -> dict[str, Array]:
    """Track id -> log-mel frames in dB. A file that can't be used is named in a warning and left out."""
    wanted = set(ids)
    tracks = [track for track in dataset.tracks if track.id in wanted]
    return {track.id: frames for track, frames in dataset.usable(progress(tracks, "Features"), config)}


class Windows(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of randomly cut windows. Batch i of epoch e is the same in every run with the same seed, so a run can
    be taken up again."""

    def __init__(self, frames: Sequence[Array], config: Config):
        super().__init__()
        self.frames, self.config, self.epoch = frames, config, 0

    def __len__(self) -> int:
        return math.ceil(len(self.frames) * self.config.training.windows_per_track / self.config.training.batch_size)

    def _chosen(self, index: int) -> tuple[Ints, augment.Rng]:
        """The tracks of a batch, and what its alterations are drawn by."""
        settings = self.config.training
        order = np.random.default_rng([settings.seed, self.epoch])
        rounds = [order.permutation(len(self.frames)) for _ in range(settings.windows_per_track)]
        chosen = np.concatenate(rounds)[index * settings.batch_size : (index + 1) * settings.batch_size]
        return chosen, np.random.default_rng([settings.seed, self.epoch, index])

    def _cut(self, chosen: Ints, rng: augment.Rng) -> Array:
        return np.stack([augment.cut(self.frames[i], self.config.features, self.config.training, rng) for i in chosen])

    def _mfccs(self, windows: Array, rng: augment.Rng) -> Array:
        settings = self.config.training
        altered = augment.mask(augment.colour(windows, settings, rng), settings, rng)
        return mfcc(altered, self.config.features.n_mfcc)


class TrainingWindows(Windows):
    """Altered windows as MFCCs (batch, frames, n_mfcc), with one-hot targets (batch, n_genres)."""

    def __init__(self, frames: Sequence[Array], labels: Sequence[int], n_genres: int, config: Config):
        super().__init__(frames, config)
        self.targets = np.eye(n_genres, dtype=np.float32)[np.asarray(labels)]

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen, rng = self._chosen(index)
        mixup = self.config.training.mixup
        windows, targets = augment.mixup(self._cut(chosen, rng), self.targets[chosen], mixup, rng)
        return self._mfccs(windows, rng), targets


class PairedWindows(Windows):
    """Two altered windows of each track as MFCCs (2 * batch, frames, n_mfcc), with the tracks' numbers (2 * batch,)."""

    def __getitem__(self, index: int) -> tuple[Array, Ints]:
        chosen, rng = self._chosen(index)
        twice = np.concatenate([chosen, chosen])
        return self._mfccs(self._cut(twice, rng), rng), twice


class TrackWindows:
    """The windows of whole tracks, as prediction cuts them, to be judged by any function MFCC -> logits.

    Silent windows are left out, but for the first of a track that is all silent.
    """

    def __init__(self, frames: Iterable[Array], config: FeatureConfig):
        self.tracks = [_heard(track_windows(item, config)) for item in frames]

    def logits(self, network: Callable[[Array], Array], batch_size: int = 64) -> list[Array]:
        """For each track, its windows' logits (n_windows, n_genres)."""
        lengths = {windows.shape[1] for windows in self.tracks}
        found: dict[int, Array] = {}
        for length in lengths:
            chosen = [i for i, windows in enumerate(self.tracks) if windows.shape[1] == length]
            together = np.concatenate([self.tracks[i] for i in chosen])
            batches = [network(together[i : i + batch_size]) for i in range(0, len(together), batch_size)]
            ends = np.cumsum([len(self.tracks[i]) for i in chosen])[:-1]
            found.update(zip(chosen, np.split(np.concatenate(batches), ends), strict=True))
        return [found[i] for i in range(len(self.tracks))]


class ShiftedWindows(TrackWindows):
    """Windows of whole tracks at random pitch and tempo, and else as they are; the same in every run with one seed."""

    def __init__(self, frames: Iterable[Array], config: Config):
        rng = np.random.default_rng(config.training.seed)
        settings = replace(config.training, band_limit=0, echo=0, hiss=0, contrast=0)
        tracks = ([augment.cut(item, config.features, settings, rng) for _ in range(SHIFTED)] for item in frames)
        self.tracks = [_heard(mfcc(np.stack(windows), config.features.n_mfcc)) for windows in tracks]


def familiar_windows(frames: Iterable[Array], config: FeatureConfig) -> list[Array]:
    """The windows of tracks, and of the same tracks with an echo: what a model may call familiar.

    Without the echo, two microphones a step apart make any music strange.
    """
    rng = np.random.default_rng(0)
    tracks = []
    for item in frames:
        windows, echoing = (track_windows(x, config) for x in (item, augment.echo(item, config, rng)))
        heard = windows.any(axis=(1, 2))  # silence has no echo
        tracks += [windows[heard], echoing[heard]] if heard.any() else [windows[:1]]
    return tracks


def _heard(windows: Array) -> Array:
    heard = windows.any(axis=(1, 2))
    return windows[heard] if heard.any() else windows[:1]
