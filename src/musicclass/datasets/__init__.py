"""Data sets: tracks whose genre is known. Each type of data set is one function that returns a Dataset."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from musicclass.config import FeatureConfig
from musicclass.errors import UNPRINTABLE, AudioError, DatasetError
from musicclass.features import TrackFeatures
from musicclass.prediction import UNKNOWN

CONFIDENCES = ("high", "medium", "low")  # of a track's genre
MAX_NAMES = 5  # in a warning


@dataclass(frozen=True)
class Track:
    """One track with its genre."""

    id: str  # unique in its data set
    genre: str
    artist: str = ""  # "": not known
    audio_hash: str = ""  # equal for exact replicas; "": not known
    path: Path | None = None  # None: features only
    source: str = ""  # the collection that it is from; "": not known
    confidence: str = ""  # one of CONFIDENCES; "": not known, as high


@dataclass(frozen=True)
class Dataset:
    """Tracks, and the function that gives their features."""

    name: str
    tracks: tuple[Track, ...]
    features: Callable[[Track, FeatureConfig, bool], TrackFeatures] = field(repr=False)  # bool: with the tagger's
    warnings: tuple[str, ...] = ()  # such as missing or corrupt tracks

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres of its tracks, sorted."""
        return tuple(sorted({track.genre for track in self.tracks}))

    def iter_features(
        self, tracks: Iterable[Track], config: FeatureConfig, with_tagger: bool = False
    ) -> Iterator[tuple[Track, TrackFeatures]]:
        """Tracks with their features; a track that can't be used is skipped, with a warning."""
        for track in tracks:
            try:
                yield track, self.features(track, config, with_tagger)
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


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one. A track's source is its data set, unless it has one already.

    Where ids occur in more than one data set, they get its name as a prefix. Tracks of one artist belong together in
    all of them, in lower or upper case.
    """
    count = Counter(track.id for dataset in datasets for track in dataset.tracks)
    origin: dict[str, tuple[Dataset, Track]] = {}
    tracks = []
    for dataset in datasets:
        for track in dataset.tracks:
            name = f"{dataset.name}/{track.id}" if count[track.id] > 1 else track.id
            origin[name] = dataset, track
            tracks.append(replace(track, id=name, artist=track.artist.lower(), source=track.source or dataset.name))

    def features(track: Track, config: FeatureConfig, with_tagger: bool) -> TrackFeatures:
        dataset, original = origin[track.id]
        return dataset.features(original, config, with_tagger)

    if len(origin) < len(tracks):
        raise DatasetError("two data sets have the same name and tracks; rename one of them")
    warnings = tuple(warning for dataset in datasets for warning in dataset.warnings)
    return check_genres(Dataset("+".join(dataset.name for dataset in datasets), tuple(tracks), features, warnings))


def check_genres(dataset: Dataset) -> Dataset:
    """The data set with one spelling, the most frequent, of genres that differ in case, spaces or Unicode form.

    Warnings name these, and recordings with two genres. Raises DatasetError for a name that no genre can have.
    """
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for track in dataset.tracks:
        spellings[_fold(track.genre)][track.genre] += 1
    genre_of = {key: _tidy(min(counts, key=lambda name: (-counts[name], name))) for key, counts in spellings.items()}
    merged = [
        f"one genre, {genre_of[key]}: {', '.join(map(repr, sorted(counts)))}"
        for key, counts in spellings.items()
        if len(counts) > 1
    ]
    for genre in genre_of.values():
        if not genre or genre == UNKNOWN or UNPRINTABLE.search(genre):
            raise DatasetError(f"{dataset.name}: {genre!r} can't be the name of a genre; rename it")
    tracks = tuple(replace(track, genre=genre_of[_fold(track.genre)]) for track in dataset.tracks)
    notes = tuple(dict.fromkeys((*dataset.warnings, *merged, *_two_genres(tracks))))
    return replace(dataset, tracks=tracks, warnings=notes)


def _tidy(genre: str) -> str:
    return unicodedata.normalize("NFC", " ".join(genre.split()))


def _fold(genre: str) -> str:
    return unicodedata.normalize("NFKC", _tidy(genre)).casefold()


def _two_genres(tracks: Sequence[Track]) -> list[str]:
    """A warning where files with the same content have two genres."""
    first: dict[str, Track] = {}
    pairs = [(first.setdefault(track.audio_hash, track), track) for track in tracks if track.audio_hash]
    names = [f"{a.id} ({a.genre}) and {b.id} ({b.genre})" for a, b in pairs if a.genre != b.genre]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return [f"the same recording has two genres; keep one: {'; '.join(names[:MAX_NAMES])}{more}"] if names else []


def keep_genres(dataset: Dataset, genres: Sequence[str]) -> Dataset:
    """The data set without the tracks of other genres. Raises DatasetError where a genre has no track."""
    missing = sorted(set(genres) - set(dataset.genres))
    if missing:
        raise DatasetError(f"{dataset.name} has no tracks of {', '.join(missing)}; change training.genres")
    return replace(dataset, tracks=tuple(t for t in dataset.tracks if t.genre in genres)) if genres else dataset
