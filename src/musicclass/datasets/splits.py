"""Train/validation/test splits of tracks, with leakage checks.

Parts of one track are never in two subsets. Exact replicas stay together and, but for `random`, so do artists.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musicclass.datasets import Dataset, Track, gtzan
from musicclass.datasets.label_csv import match_track_names, read_column
from musicclass.errors import DatasetError, LeakError, import_optional
from musicclass.text import plural

SUBSETS = ("train", "valid", "test")
TEST_SIZE = 0.15  # share of the tracks for testing, and as much for validation
MAX_LEAKS_SHOWN = 20


@dataclass(frozen=True)
class Split:
    """Track ids of each subset; `test` may be empty."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...] = ()
    seed: int = 42

    def subsets(self) -> dict[str, tuple[str, ...]]:
        """Subset -> its track ids."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def make_split(dataset: Dataset, how: str = "auto", seed: int = 42, test_size: float = TEST_SIZE) -> Split:
    """Split by `how`:

    auto      filtered with GTZAN, artist where artists are known, else random
    random    70/15/15 (with the default `test_size`) in each genre; exact replicas stay together, artists don't
    artist    the same, and all tracks of an artist stay together; tracks of unknown artists are used in training only
    filtered  GTZAN without its faults, by artist (Kereliuk, Sturm, Larsen 2015); tracks of other data sets are
              where GTZAN has their artist, else in training, but none is in the test set
    FILE.csv  columns track, split (train, valid, test; excluded or empty: not used) and, optionally, artist

    With a `test_size` of 0, random and artist use all tracks in training: for models that calibrate by folds. Raises
    DatasetError when it can't be done, LeakError when a split from a file leaks.
    """
    how = _default_split(dataset) if how == "auto" else how
    tracks, from_file = dataset.tracks, how.lower().endswith(".csv")
    if from_file:
        artists, _ = match_track_names(read_column(Path(how), "artist", optional=True), [track.id for track in tracks])
        tracks = tuple(replace(track, artist=artists.get(track.id, track.artist)) for track in tracks)
        subset_of, check_artists = _from_file(dataset, Path(how)), bool(artists)
    elif how in METHODS:
        subset_of, check_artists = METHODS[how](tracks, seed, test_size), how != "random"
    else:
        raise DatasetError(f"unknown split {how!r}; choose auto, {', '.join(METHODS)} or FILE.csv")
    train, valid, test = (tuple(t.id for t in tracks if subset_of.get(t.id) == subset) for subset in SUBSETS)
    split = Split(Path(how).name, train, valid, test, seed)
    if not train or not (valid or from_file or test_size == 0):  # these may be for training with calibration folds
        raise DatasetError(
            f"split {how}: too few tracks, {len(train)} for training and {len(valid)} for validation; "
            "add tracks, or choose another --split"
        )
    check_leakage(split, tracks, check_artists)
    return split


def _default_split(dataset: Dataset) -> str:
    if any(track.id in gtzan.index() for track in dataset.tracks):
        return "filtered"
    return "artist" if any(track.artist for track in dataset.tracks) else "random"


def check_leakage(split: Split, tracks: Iterable[Track], artists: bool) -> None:
    """Raise LeakError, with names, when a track, an exact replica or, with `artists`, an artist is in two subsets."""
    by_id = {track.id: track for track in tracks}
    first_of: dict[tuple[str, str], tuple[str, str]] = {}
    leaks = []
    for subset, ids in split.subsets().items():
        for track in (by_id[name] for name in ids if name in by_id):
            keys = [("track", track.id), ("replica", track.audio_hash), ("artist", track.artist if artists else "")]
            for kind, value in keys:
                first_subset, first = first_of.setdefault((kind, value), (subset, track.id)) if value else (subset, "")
                if first_subset != subset:
                    what = f"artist {value}: " if kind == "artist" else f"{kind}: "
                    leaks.append(f"{what}{first} ({first_subset}) and {track.id} ({subset})")
    if leaks:
        more = [f"and {len(leaks) - MAX_LEAKS_SHOWN} more"] if len(leaks) > MAX_LEAKS_SHOWN else []
        shown = "\n  ".join(leaks[:MAX_LEAKS_SHOWN] + more)
        raise LeakError(f"split {split.name} leaks between subsets; move these tracks into one subset:\n  {shown}")


def _random(tracks: Sequence[Track], seed: int, test_size: float) -> dict[str, str]:
    return _stratified_group_split(
        tracks, {track.id: track.audio_hash or track.id for track in tracks}, seed, test_size
    )


def _by_artist(tracks: Sequence[Track], seed: int, test_size: float) -> dict[str, str]:
    """Groups are tied by artists and exact replicas; a group with an unknown artist is used in training only."""
    if not any(track.artist for track in tracks):
        raise DatasetError("no artists are known; give a CSV (track, artist) with --artists, or use --split random")
    group_of, unknown = artist_groups(tracks)
    known = [track for track in tracks if group_of[track.id] not in unknown]
    training_only = {track.id: "train" for track in tracks if group_of[track.id] in unknown}
    return _stratified_group_split(known, group_of, seed, test_size) | training_only


def _filtered(tracks: Sequence[Track], seed: int, test_size: float) -> dict[str, str]:
    index = gtzan.index()
    if not any(track.id in index for track in tracks):
        raise DatasetError(f"split filtered is for GTZAN, which has no track {tracks[0].id}; use --split auto")
    of_artist = {
        entry.artist.lower(): entry.filtered_split for entry in index.values() if entry.filtered_split in SUBSETS
    }
    of_artist = {**of_artist, "": "train"}
    subset_of = {}
    for track in tracks:
        subset = of_artist.get(track.artist.lower(), "train")
        other = "excluded" if subset == "test" else subset  # the test set is GTZAN's alone
        subset_of[track.id] = index[track.id].filtered_split if track.id in index else other
    return subset_of


METHODS = {"random": _random, "artist": _by_artist, "filtered": _filtered}


def _stratified_group_split(
    tracks: Iterable[Track], group_of: dict[str, str], seed: int, test_size: float
) -> dict[str, str]:
    """Track id -> subset. Groups, large ones first, go where their genres are furthest below their proportion.

    A genre's last groups go to the subsets that have none of it yet.
    """
    if test_size == 0:
        return {track.id: "train" for track in tracks}
    proportions = {"train": 1 - 2 * test_size, "valid": test_size, "test": test_size}
    members: dict[str, list[Track]] = defaultdict(list)
    for track in sorted(tracks, key=lambda track: track.id):
        members[group_of[track.id]].append(track)
    total = Counter(track.genre for group in members.values() for track in group)
    n_groups_left = Counter(genre for group in members.values() for genre in {track.genre for track in group})
    placed: Counter[tuple[str, str]] = Counter()
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: -len(members[name]))  # stable: groups of one size stay shuffled
    subset_of = {}
    for name in order:
        genres = Counter(track.genre for track in members[name])
        empty = {genre: [s for s in SUBSETS if not placed[genre, s]] for genre in genres}
        urgent = [s for genre, subsets in empty.items() if len(subsets) >= n_groups_left[genre] for s in subsets]
        room = {
            s: sum(n * (1 - (placed[g, s] + n) / (total[g] * proportions[s])) for g, n in genres.items())
            for s in SUBSETS
        }
        subset = max(urgent or SUBSETS, key=room.__getitem__)
        for genre, n in genres.items():
            placed[genre, subset] += n
            n_groups_left[genre] -= 1
        subset_of.update({track.id: subset for track in members[name]})
    return subset_of


def artist_kfold(tracks: Sequence[Track], n_folds: int, seed: int = 0) -> list[Split]:
    """Cross-validation by artist: each track of a known artist is in `valid` of one fold, with all of that artist.

    Tracks of unknown artists are used in training only. Raises DatasetError when there are too few artists.
    """
    group_of, unknown = artist_groups(tracks)
    known = [track for track in tracks if group_of[track.id] not in unknown]
    groups = [group_of[track.id] for track in known]
    if len(set(groups)) < n_folds:
        raise DatasetError(f"too few known artists, {len(set(groups))}, for {n_folds} folds; use fewer folds")
    largest = max(Counter(track.genre for track in known).values())
    if largest < n_folds:
        raise DatasetError(
            f"too few tracks in the largest genre, {largest}, for {n_folds} folds; add tracks, or use fewer folds"
        )
    model_selection = import_optional("sklearn.model_selection", "train")
    folds = model_selection.StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    splits: list[Split] = []
    for _, rows in folds.split(known, [track.genre for track in known], groups):
        valid = {known[i].id for i in rows}
        train = tuple(track.id for track in tracks if track.id not in valid)
        splits.append(Split(f"fold {len(splits) + 1} of {n_folds}", train, tuple(sorted(valid)), seed=seed))
    return splits


def artist_groups(tracks: Iterable[Track]) -> tuple[dict[str, str], set[str]]:
    """Track id -> its group, tied together by artists and exact replicas; and the groups with an unknown artist."""
    tracks = list(tracks)
    parent: dict[str, str] = {}  # union-find

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]  # path halving
        return name

    for track in tracks:
        for tie in (f"artist {track.artist}", f"audio {track.audio_hash}"):
            if not tie.endswith(" "):
                parent[root(tie)] = root(track.id)
    group_of = {track.id: root(track.id) for track in tracks}
    return group_of, {group_of[track.id] for track in tracks if not track.artist}


def _from_file(dataset: Dataset, path: Path) -> dict[str, str]:
    values = read_column(path, "split")
    invalid = sorted(set(values.values()) - {*SUBSETS, "excluded", ""})
    if invalid:
        raise DatasetError(f"{path}: unknown subset {invalid[0]!r}; use {', '.join(SUBSETS)} or excluded")
    ids = {track.id for track in dataset.tracks}
    subset_of, unknown = match_track_names(values, ids)
    if not subset_of:
        raise DatasetError(f"{path}: none of its tracks is in {dataset.name}, whose tracks have names like {min(ids)}")
    if unknown:
        raise DatasetError(f"{path}: not in {dataset.name}: {plural(len(unknown), 'track')}: {', '.join(unknown[:5])}")
    return subset_of
