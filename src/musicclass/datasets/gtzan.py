"""GTZAN: ten genres with 100 clips of 30 s each (G. Tzanetakis, P. Cook, IEEE Trans. Speech Audio Process. 10, 2002).

There is no official download: copyrighted music, for research only.
gtzan_tracks.csv, the index, has for each track: the artist (B. L. Sturm, arXiv:1306.1461), the subset in the
fault-filtered split (C. Kereliuk, B. L. Sturm, J. Larsen, 2015) and the hash of its file in the Kaggle copy.
Known faults: jazz.00054 is corrupt in the Kaggle copy; 14 pairs are exact replicas; further tracks are repetitions,
distorted or mislabelled (see Sturm).
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import NamedTuple

from musicclass.audio_files import AUDIO_SUFFIXES
from musicclass.datasets import Dataset, Track
from musicclass.datasets.cache import cached_features
from musicclass.errors import DatasetError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
CORRUPT_WAV = "jazz.00054"


class Entry(NamedTuple):
    """A row of the index."""

    artist: str
    filtered_split: str  # train, valid, test or excluded
    sha256_wav: str


@functools.cache
def index() -> dict[str, Entry]:
    """Track id -> Entry, for all 1,000 tracks."""
    text = Path(__file__).with_name("gtzan_tracks.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row.pop("track"): Entry(**row) for row in rows}


def make_track(track_id: str, path: Path | None = None) -> Track:
    """The Track of a GTZAN id such as blues.00000. Raises KeyError for another id."""
    entry = index()[track_id]
    return Track(track_id, track_id.partition(".")[0], entry.artist, entry.sha256_wav, path)


def is_gtzan(root: Path) -> bool:
    """Whether most audio files in sub-folders of `root` are named like GTZAN's tracks, and in folders like its."""
    files = [path for path in root.glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES]
    of_gtzan = [path for path in files if path.stem in index() and path.stem.startswith(f"{path.parent.name}.")]
    return 2 * len(of_gtzan) > len(files)


def read(root: Path) -> Dataset:
    """Open a complete or partial copy of GTZAN; warnings name missing and corrupt tracks.

    Raises DatasetError when there are no tracks of it.
    """
    paths = {
        path.stem: path
        for genre in GENRES
        for path in sorted((root / genre).glob(f"{genre}.*"))
        if path.suffix.lower() in AUDIO_SUFFIXES and path.stem in index()
    }
    if not paths:
        raise DatasetError(f"{root}: no GTZAN track; it needs files such as {root / 'blues' / 'blues.00000.wav'}")
    warnings = []
    if CORRUPT_WAV in paths and paths[CORRUPT_WAV].suffix == ".wav":
        del paths[CORRUPT_WAV]
        warnings.append(f"{CORRUPT_WAV}.wav is skipped: it is corrupt in the Kaggle copy")
    others = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in GENRES)
    if others:
        warnings.append(f"not in GTZAN, so skipped: {', '.join(others)}; --dataset folder reads any genre")
    missing = [track for track in index() if track not in paths and track != CORRUPT_WAV]
    if missing:
        warnings.append(f"{len(missing)} of GTZAN's 1,000 tracks are missing, the first of them {missing[0]}")
    return Dataset(
        "gtzan", tuple(make_track(*item) for item in sorted(paths.items())), cached_features, tuple(warnings)
    )
