"""GTZAN: ten genres, 100 clips of 30 s each, as most papers use it.

Citation    G. Tzanetakis, P. Cook: Musical genre classification of audio signals.
            IEEE Transactions on Speech and Audio Processing 10(5), 2002
Index       gtzan_tracks.csv: artists (B. L. Sturm, arXiv:1306.1461), the fault-filtered split
            (C. Kereliuk, B. L. Sturm, J. Larsen, 2015), hashes of the Kaggle copy's files
Remotes     none: the music is copyrighted and has no official home; bring your own copy, as
            genres_original/blues/blues.00000.wav and so on (.au, .flac, … are read too)
Licence     copyrighted music, for research only
Faults      jazz.00054 is corrupt in the Kaggle copy; 14 pairs are exact replicas; many more
            are repetitions, distorted or mislabelled (see the index's source)
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from musicclass.datasets import AUDIO_SUFFIXES, Dataset, Track
from musicclass.datasets.folder import cached_log_mel
from musicclass.errors import DatasetError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
CORRUPT_WAV = "jazz.00054"
ID = re.compile(rf"({'|'.join(GENRES)})\.000\d\d")


@dataclass(frozen=True)
class Entry:
    """What is known of one of the 1,000 tracks."""

    artist: str
    filtered_split: str  # train, valid, test or excluded
    sha256_wav: str


@functools.cache
def index() -> dict[str, Entry]:
    """Track id -> Entry, for all 1,000 tracks."""
    text = (resources.files("musicclass.datasets") / "gtzan_tracks.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        row["track"]: Entry(row["artist"], row["filtered_split"], row["sha256_wav"]) for row in csv.DictReader(lines)
    }


def describe(track_id: str, path: Path | None = None) -> Track:
    """The Track of a GTZAN id such as blues.00000. Raises KeyError when there is no such track."""
    entry = index()[track_id]
    return Track(track_id, track_id.partition(".")[0], entry.artist, entry.sha256_wav, path)


def looks_like(root: Path) -> bool:
    """Whether `root` has sub-folders named like GTZAN's genres, with files named like its tracks."""
    return any(
        ID.fullmatch(path.stem) for genre in GENRES if (root / genre).is_dir() for path in (root / genre).iterdir()
    )


def _ranges(ids: list[str]) -> str:
    """Track ids, with runs of them shortened: blues.00002-00005, rock.00007."""
    runs: list[list[str]] = []
    numbers = {name: number for number, name in enumerate(index())}
    for name in ids:
        if runs and numbers[name] == numbers[runs[-1][-1]] + 1 and name[:-3] == runs[-1][0][:-3]:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] + (f"-{run[-1][-5:]}" if len(run) > 1 else "") for run in runs)


def read(root: Path) -> Dataset:
    """Open a copy of GTZAN, whole or not; its notes name what is missing or corrupt.

    Raises DatasetError when no track is found.
    """
    found = {
        path.stem: path
        for genre in GENRES
        for path in sorted((root / genre).glob(f"{genre}.*"))
        if path.suffix.lower() in AUDIO_SUFFIXES and path.stem in index()
    }
    if not found:
        raise DatasetError(f"{root}: no GTZAN track found; expected files such as {root / 'blues' / 'blues.00000.wav'}")
    notes = []
    if CORRUPT_WAV in found and found[CORRUPT_WAV].suffix == ".wav":
        del found[CORRUPT_WAV]
        notes.append(f"{CORRUPT_WAV}.wav is left out: it is corrupt in the Kaggle copy")
    others = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in GENRES)
    if others:
        notes.append(f"not GTZAN's, so left out: {', '.join(others)}; --dataset folder takes any genre")
    missing = [track for track in index() if track not in found and track != CORRUPT_WAV]
    if missing:
        names = _ranges(missing)
        notes.append(f"{len(missing)} of GTZAN's 1,000 tracks are missing: {names}")
    return Dataset("gtzan", tuple(describe(*item) for item in sorted(found.items())), cached_log_mel, tuple(notes))
