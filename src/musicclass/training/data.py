"""Tracks' log-mel frames, as windows that a network trains on and is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from musicclass.classifier import track_windows
from musicclass.confidence import softmax
from musicclass.config import Config, FeatureConfig
from musicclass.datasets import Dataset
from musicclass.features import Array, mfcc
from musicclass.printing import progress
from musicclass.training import augment


def load_frames(dataset: Dataset, ids: Iterable[str], config: FeatureConfig) -> dict[str, Array]:
    """Track id -> log-mel frames in dB. A file that can't be used is named in a warning and left out."""
    wanted = set(ids)
    tracks = [track for track in dataset.tracks if track.id in wanted]
    return {track.id: frames for track, frames in dataset.usable(progress(tracks, "Features"), config)}


class TrainingWindows(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of randomly cut and altered windows as MFCCs (batch, frames, n_mfcc), with one-hot targets.

    Batch i of epoch e is the same in every run with the same seed, so a run can be taken up again. With a
    `teacher`, MFCC -> logits, its probabilities for these very windows are the targets (distillation, Hinton et
    al. 2015; the same windows for both: Beyer et al. 2022).
    """

    def __init__(
        self,
        frames: Sequence[Array],
        labels: Sequence[int],
        n_genres: int,
        config: Config,
        teacher: Callable[[Array], Array] | None = None,
    ):
        super().__init__()
        self.frames, self.labels, self.n_genres, self.config = frames, np.asarray(labels), n_genres, config
        self.teacher, self.epoch = teacher, 0

    def __len__(self) -> int:
        return math.ceil(len(self.frames) * self.config.training.windows_per_track / self.config.training.batch_size)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        features, settings = self.config.features, self.config.training
        order = np.random.default_rng([settings.seed, self.epoch])
        rounds = [order.permutation(len(self.frames)) for _ in range(settings.windows_per_track)]
        chosen = np.concatenate(rounds)[index * settings.batch_size : (index + 1) * settings.batch_size]
        rng = np.random.default_rng([settings.seed, self.epoch, index])
        windows = np.stack([augment.cut(self.frames[i], features, settings, rng) for i in chosen])
        targets = np.eye(self.n_genres, dtype=np.float32)[self.labels[chosen]]
        windows, targets = augment.mixup(windows, targets, settings.mixup, rng)
        windows = augment.mask(augment.colour(windows, settings, rng), settings, rng)
        mfccs = mfcc(windows, features.n_mfcc)
        return mfccs, softmax(self.teacher(mfccs)).astype(np.float32) if self.teacher else targets


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
