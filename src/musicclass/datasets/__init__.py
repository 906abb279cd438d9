"""Where tracks with known genres come from. Each kind is one function that returns a Dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musicclass.config import FeatureConfig
from musicclass.errors import AudioError, DatasetError
from musicclass.features import Array

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".aif", ".aiff", ".aifc", ".wma",
    ".wv", ".au", ".snd", ".caf", ".w64", ".ape", ".mka", ".mpc", ".tta", ".ac3",
)  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One piece of music with a known genre."""

    id: str  # unique in its data set
    genre: str
    artist: str = ""  # "": not known
    content: str = ""  # equal contents are exact replicas; "": not known
    path: Path | None = None  # None: features only


@dataclass(frozen=True)
class Dataset:
    """Tracks, and how to come by their features."""

    name: str
    tracks: tuple[Track, ...]
    log_mel: Callable[[Track, FeatureConfig], Array] = field(repr=False)  # dB, (n_frames, n_bands)
    notes: tuple[str, ...] = ()  # what the user should know: missing or corrupt tracks

    @property
    def genres(self) -> tuple[str, ...]:
        return tuple(sorted({track.genre for track in self.tracks}))

    def usable(self, tracks: Iterable[Track], config: FeatureConfig) -> Iterator[tuple[Track, Array]]:
        """Tracks with their features; a track that can't be used is named in a warning and left out."""
        for track in tracks:
            try:
                yield track, self.log_mel(track, config)
            except AudioError as error:
                warnings.warn(f"{track.id} is left out: {error}", stacklevel=2)


def open_dataset(path: Path, kind: str = "auto", artists: Path | None = None) -> Dataset:
    """Open the data set at `path`: an archive (.npz), GTZAN, a folder with one sub-folder per genre, or labels (.csv).

    `kind` is "auto", "archive", "gtzan", "folder" or "labels"; `artists` is a CSV (track, artist) for the last two.
    Raises DatasetError when there is nothing of that kind.
    """
    from musicclass.datasets import archive, folder, gtzan, labels

    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if kind == "auto":
        kind = _kind_of_file(path) if path.is_file() else "gtzan" if gtzan.looks_like(path) else "folder"
    if kind == "folder":
        return folder.read(path, artists)
    if kind == "labels":
        return labels.read(path, artists)
    if kind not in ("archive", "gtzan"):
        raise DatasetError(f"unknown kind of data set {kind!r}; there are: archive, gtzan, folder, labels")
    if artists is not None:
        raise DatasetError("--artists is for folders and labels; archives and GTZAN bring their own")
    return archive.read(path) if kind == "archive" else gtzan.read(path)


def _kind_of_file(path: Path) -> str:
    return "labels" if path.suffix.lower() == ".csv" else "archive"
