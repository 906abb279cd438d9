"""Log-mel frames of tracks -> batches of augmented windows for training."""

from __future__ import annotations

import math

import keras
import numpy as np

from musicclass.config import Config
from musicclass.features import Array, mfcc
from musicclass.training import augment
from musicclass.training.ood import Ints
from musicclass.training.tracks import LabelledTracks


class WindowBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of random crops.

    Batch i of epoch e is the same in every run with the same seed, so an interrupted run can resume.
    """

    def __init__(self, tracks: LabelledTracks, config: Config):
        super().__init__()
        self.frames, self.config, self.epoch = tracks.log_mel, config, 0
        settings = config.training
        weights = tracks.weights(settings.label_weights, settings.genre_balance)
        self.shares = None if np.ptp(weights) == 0 else weights / weights.sum()
        self.targets = np.eye(len(tracks.genres), dtype=np.float32)[tracks.labels]

    def __len__(self) -> int:
        return math.ceil(len(self.frames) * self.config.training.crops_per_track / self.config.training.batch_size)

    def _choose(self, index: int) -> tuple[Ints, augment.Rng]:
        """The tracks (batch,) of a batch, and the generator for its augmentation."""
        settings = self.config.training
        order = np.random.default_rng([settings.seed, self.epoch])
        n_tracks = len(self.frames)
        if self.shares is None:
            tracks = np.concatenate([order.permutation(n_tracks) for _ in range(settings.crops_per_track)])
        else:
            tracks = order.choice(n_tracks, n_tracks * settings.crops_per_track, p=self.shares)
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
