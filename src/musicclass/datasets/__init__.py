"""Data sets: tracks whose genre is known. Each type of data set is one function that returns a Dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musicclass.config import FeatureConfig
from musicclass.errors import AudioError, DatasetError
from musicclass.features import Array


@dataclass(frozen=True)
class Track:
    """One track with its genre."""

    id: str  # unique in its data set
    genre: str
    artist: str = ""  # "": not known
    audio_hash: str = ""  # equal for exact replicas; "": not known
    path: Path | None = None  # None: features only


@dataclass(frozen=True)
class Dataset:
    """Tracks, and the function that gives their features."""

    name: str
    tracks: tuple[Track, ...]
    log_mel: Callable[[Track, FeatureConfig], Array] = field(repr=False)  # dB, (n_frames, n_mels_kept)
    warnings: tuple[str, ...] = ()  # such as missing or corrupt tracks

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres of its tracks, sorted."""
        return tuple(sorted({track.genre for track in self.tracks}))

    def iter_features(self, tracks: Iterable[Track], config: FeatureConfig) -> Iterator[tuple[Track, Array]]:
        """Tracks with their log-mel frames; a track that can't be used is skipped, with a warning."""
        for track in tracks:
            try:
                yield track, self.log_mel(track, config)
            except AudioError as error:
                warnings.warn(f"{track.id} is skipped: {error}", stacklevel=2)


def open_dataset(path: Path, kind: str = "auto", artists: Path | None = None) -> Dataset:
    """Open the data set at `path`: an archive (.npz), GTZAN, a folder with one sub-folder per genre, or labels (.csv).

    `kind` is "auto", "archive", "gtzan", "folder" or "labels"; `artists` is a CSV (track, artist) for the last two.
    Raises DatasetError when there is no such data set.
    """
    from musicclass.datasets import feature_archive, folder, gtzan, label_csv

    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if kind == "auto" and path.is_file():
        kind = "labels" if path.suffix.lower() == ".csv" else "archive"
    elif kind == "auto":
        kind = "gtzan" if gtzan.is_gtzan(path) else "folder"
    if kind == "folder":
        return folder.read(path, artists)
    if kind == "labels":
        return label_csv.read(path, artists)
    if kind not in ("archive", "gtzan"):
        raise DatasetError(f"unknown type of data set {kind!r}; choose archive, gtzan, folder or labels")
    if artists is not None:
        raise DatasetError("--artists is for folders and labels; archives and GTZAN include their artists")
    return feature_archive.read(path) if kind == "archive" else gtzan.read(path)
