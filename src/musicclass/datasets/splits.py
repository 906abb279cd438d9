"""Which tracks train, which choose, which test: always whole tracks, and nothing on two sides."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musicclass.datasets import Dataset, Track, gtzan
from musicclass.datasets.folder import matched, read_column
from musicclass.errors import DatasetError, LeakError, require

SHARES = {"train": 0.70, "valid": 0.15, "test": 0.15}
SIDES = tuple(SHARES)


@dataclass(frozen=True)
class Split:
    """Track ids on three sides; `test` may be empty."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...] = ()
    seed: int = 42

    def sides(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train, "valid": self.valid, "test": self.test}


def make_split(dataset: Dataset, how: str = "random", seed: int = 42) -> Split:
    """Split by `how`:

    random    70/15/15 in each genre; exact replicas stay together
    artist    the same, and all tracks of an artist stay together; tracks of unknown artists only train
    filtered  GTZAN without its faults, by artist (Kereliuk, Sturm, Larsen 2015)
    FILE.csv  columns track, split (train, valid, test; excluded or empty: not used), and, to have
              them kept apart, artist

    Raises DatasetError when it can't be done, LeakError when a split from a file leaks.
    """
    tracks, artists = dataset.tracks, dict[str, str]()
    if how == "random":
        sides = _balanced(tracks, {track.id: track.content or track.id for track in tracks}, seed)
    elif how == "artist":
        if not any(track.artist for track in tracks):
            raise DatasetError("no artists are known here; give a CSV (track, artist) with --artists")
        sides = _by_artist(tracks, seed)
    elif how == "filtered":
        sides = _filtered(dataset)
    elif how.lower().endswith(".csv"):
        artists, _ = matched(read_column(Path(how), "artist", optional=True), [track.id for track in tracks])
        tracks = tuple(replace(track, artist=artists.get(track.id, track.artist)) for track in tracks)
        sides = _from_file(dataset, Path(how))
    else:
        raise DatasetError(f"unknown split {how!r}; there are: random, artist, filtered, FILE.csv")
    train, valid, test = (tuple(track.id for track in tracks if sides.get(track.id) == side) for side in SIDES)
    split = Split(Path(how).name, train, valid, test, seed)
    if not split.train or not split.valid:
        raise DatasetError(f"split {how}: too few tracks: {len(split.train)} train, {len(split.valid)} validate")
    refuse_leaks(split, tracks, artists=how in ("artist", "filtered") or bool(artists))
    return split


def refuse_leaks(split: Split, tracks: Iterable[Track], artists: bool) -> None:
    """Raise LeakError, with names, when a track, an exact replica or (if asked) an artist is on two sides."""
    by_id = {track.id: track for track in tracks}
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    leaks = []
    for side, ids in split.sides().items():
        for track in (by_id[name] for name in ids if name in by_id):
            keys = [("track", track.id), ("replica", track.content), ("artist", track.artist if artists else "")]
            for kind, value in keys:
                first_side, first = seen.setdefault((kind, value), (side, track.id)) if value else (side, "")
                if first_side != side:
                    what = f"artist {value}: " if kind == "artist" else f"{kind}: "
                    leaks.append(f"{what}{first} ({first_side}) and {track.id} ({side})")
    if leaks:
        shown = "\n  ".join(leaks[:20]) + (f"\n  and {len(leaks) - 20} more" if len(leaks) > 20 else "")
        raise LeakError(f"split {split.name} leaks, so its results would mean nothing:\n  {shown}")


def _balanced(tracks: Iterable[Track], groups: dict[str, str], seed: int) -> dict[str, str]:
    """Track id -> side: groups, large ones first, each to where its genres stay furthest below their share.

    A genre's last groups go to the sides that have none of it yet.
    """
    members: dict[str, list[Track]] = defaultdict(list)
    for track in sorted(tracks, key=lambda track: track.id):
        members[groups[track.id]].append(track)
    total = Counter(track.genre for group in members.values() for track in group)
    left = Counter(genre for group in members.values() for genre in {track.genre for track in group})
    placed: Counter[tuple[str, str]] = Counter()
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: -len(members[name]))  # stable: groups of one size stay shuffled
    sides = {}
    for name in order:
        genres = Counter(track.genre for track in members[name])
        bare = {genre: [s for s in SIDES if not placed[genre, s]] for genre in genres}
        needy = [s for genre, empty in bare.items() if len(empty) >= left[genre] for s in empty]
        room = {s: sum(n * (1 - (placed[g, s] + n) / (total[g] * SHARES[s])) for g, n in genres.items()) for s in SIDES}
        side = max(needy or SIDES, key=room.__getitem__)
        for genre, n in genres.items():
            placed[genre, side] += n
            left[genre] -= 1
        sides.update({track.id: side for track in members[name]})
    return sides


def artist_folds(tracks: Sequence[Track], count: int, seed: int = 0) -> list[Split]:
    """Cross-validation: each track of a known artist is in `valid` of one fold, with all others of that artist.

    Tracks of unknown artists only train. Raises DatasetError when there are too few artists.
    """
    label, unknown = _artist_groups(tracks)
    judged = [track for track in tracks if label[track.id] not in unknown]
    groups = [label[track.id] for track in judged]
    if len(set(groups)) < count:
        raise DatasetError(f"{len(set(groups))} known artists are too few for {count} folds")
    model_selection = require("sklearn.model_selection", "train")
    folds = model_selection.StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    splits: list[Split] = []
    for _, chosen in folds.split(judged, [track.genre for track in judged], groups):
        valid = {judged[i].id for i in chosen}
        train = tuple(track.id for track in tracks if track.id not in valid)
        splits.append(Split(f"fold {len(splits) + 1} of {count}", train, tuple(sorted(valid)), seed=seed))
    return splits


def _by_artist(tracks: Iterable[Track], seed: int) -> dict[str, str]:
    """Artists and exact replicas tie tracks together; a group with an unknown artist in it only trains."""
    tracks = list(tracks)
    label, unknown = _artist_groups(tracks)
    sides = _balanced([t for t in tracks if label[t.id] not in unknown], label, seed)
    return sides | {track.id: "train" for track in tracks if label[track.id] in unknown}


def _artist_groups(tracks: Iterable[Track]) -> tuple[dict[str, str], set[str]]:
    """Track id -> a name for all that one artist, or an exact replica, ties together; names with unknown artists."""
    tracks = list(tracks)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]  # halves the way, or one artist's tracks are a long chain
        return name

    for track in tracks:
        for tie in (f"artist {track.artist}", f"content {track.content}"):
            if not tie.endswith(" "):
                parent[root(tie)] = root(track.id)
    label = {track.id: root(track.id) for track in tracks}
    return label, {label[track.id] for track in tracks if not track.artist}


def _filtered(dataset: Dataset) -> dict[str, str]:
    strangers = [track.id for track in dataset.tracks if track.id not in gtzan.index()]
    if strangers:
        raise DatasetError(f"split filtered is for GTZAN; {strangers[0]} is none of its tracks")
    return {track.id: gtzan.index()[track.id].filtered_split for track in dataset.tracks}


def _from_file(dataset: Dataset, path: Path) -> dict[str, str]:
    table = read_column(path, "split")
    odd = sorted(set(table.values()) - {*SIDES, "excluded", ""})
    if odd:
        raise DatasetError(f"{path}: {odd[0]!r} is no side of a split; there are: {', '.join(SIDES)}, excluded")
    ids = {track.id for track in dataset.tracks}
    sides, unknown = matched(table, ids)
    if not sides:
        raise DatasetError(f"{path}: none of its tracks is in {dataset.name}, whose tracks are named like {min(ids)}")
    if unknown:
        raise DatasetError(f"{path}: {len(unknown)} tracks are not in {dataset.name}: {', '.join(unknown[:5])}")
    return sides
