"""Splits keep tracks whole, and refuse leaks."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicclass.datasets import Dataset, Track, gtzan
from musicclass.datasets.splits import Split, artist_kfold, check_leakage, make_split
from musicclass.errors import DatasetError, LeakError
from musicclass.evaluation.metrics import artist_overlap
from musicclass.saved_model import PRETRAINED


def make_dataset(*tracks: Track) -> Dataset:
    return Dataset("mine", tracks, None)


GTZAN = make_dataset(*(gtzan.make_track(name) for name in gtzan.index()))
BY_ID = {track.id: track for track in GTZAN.tracks}


def test_random_split_is_stratified_and_reproducible_and_shares_artists():
    dataset = make_dataset(*(track for track in GTZAN.tracks if track.id != gtzan.CORRUPT_WAV))
    split = make_split(dataset, "random")
    for subset, count in (("train", 70), ("valid", 15), ("test", 15)):
        counts = Counter(BY_ID[name].genre for name in split.subsets()[subset])
        assert len(counts) == 10 and all(abs(n - count) <= 1 for n in counts.values())
    assert make_split(dataset, "random") == split != make_split(dataset, "random", seed=1)
    test, train = ([BY_ID[name].artist for name in ids] for ids in (split.test, split.train))
    assert artist_overlap(test, train) == pytest.approx(119 / 138)


def test_artist_split_has_every_genre_in_every_subset_and_unknown_artists_in_training():
    split = make_split(GTZAN, "artist")
    check_leakage(split, GTZAN.tracks, artists=True)
    assert len(split.train) + len(split.valid) + len(split.test) == 1000
    for ids in (split.valid, split.test):
        tracks = [BY_ID[name] for name in ids]
        assert len(tracks) > 100 and len({track.genre for track in tracks}) == 10 and all(t.artist for t in tracks)


def test_filtered_split_is_the_published_one_and_disjoint_by_artist():
    split = make_split(GTZAN, "filtered")
    assert [len(ids) for ids in split.subsets().values()] == [443, 197, 290]
    check_leakage(split, GTZAN.tracks, artists=True)
    with pytest.raises(DatasetError, match="for GTZAN"):
        make_split(make_dataset(Track("a", "x")), "filtered")


def test_default_split_depends_on_what_is_known():
    assert make_split(GTZAN) == make_split(GTZAN, "filtered")
    unknown = [Track(f"{genre}{i}", genre) for genre in "ab" for i in range(8)]
    assert make_split(make_dataset(*unknown)).name == "random"
    known = [Track(track.id, track.genre, artist=track.id) for track in unknown]
    assert make_split(make_dataset(*known)).name == "artist"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), min_size=30, max_size=60), st.integers(0, 5))
def test_every_track_is_in_one_subset_with_its_replicas_and_artist(rows, seed):
    tracks = [Track(f"{i}", genre, f"{artist or ''}", audio_hash=f"{i // 2}") for i, (genre, artist) in enumerate(rows)]
    for how in ("random", "artist"):
        try:
            split = make_split(make_dataset(*tracks), how, seed)
        except DatasetError as error:
            assert how == "artist" and re.search("too few|no artists", str(error))
            continue
        assert sorted([*split.train, *split.valid, *split.test]) == sorted(track.id for track in tracks)
        check_leakage(split, tracks, artists=how == "artist")


def test_small_data_sets_are_split():
    tracks = [Track(f"{genre}{i}", genre) for genre in "ab" for i in range(3)]
    assert all(len(ids) == 2 for ids in make_split(make_dataset(*tracks)).subsets().values())
    eight = make_split(make_dataset(*(Track(f"{i}", "a") for i in range(8))))
    assert [len(ids) for ids in eight.subsets().values()] == [6, 1, 1]


def write(tmp_path, rows, columns="track,split"):
    path = tmp_path / "my.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return str(path)


FIRST, REPLICA = next(
    (a.id, b.id) for a in GTZAN.tracks for b in GTZAN.tracks if a.id < b.id and a.audio_hash == b.audio_hash
)


def test_split_of_a_model_with_calibration_folds_has_no_validation_tracks():
    split = make_split(GTZAN, str(PRETRAINED / "gtzan" / "split.csv"))
    assert [len(ids) for ids in split.subsets().values()] == [639, 0, 290]


def test_split_from_file(tmp_path):
    rows = ["blues.00000,train", "rock.00000,train", "blues.00050,valid", "rock.00050,test", "rock.00051,excluded"]
    split = make_split(GTZAN, write(tmp_path, rows))
    assert split == Split("my.csv", ("blues.00000", "rock.00000"), ("blues.00050",), ("rock.00050",))


@pytest.mark.parametrize(
    ("rows", "columns", "error", "message"),
    [
        (
            [f"{FIRST},train", f"{REPLICA},valid"],
            "track,split",
            LeakError,
            rf"replica: {FIRST} \(train\) and {REPLICA}",
        ),
        (["blues.00000,train,X", "rock.00000,valid,X"], "track,split,artist", LeakError, "artist X"),
        (["blues.00000,train", "blues.00000,valid"], "track,split", DatasetError, "blues.00000 has two"),
        (["nobody,train"], "track,split", DatasetError, "none of its tracks"),
        (["blues.00000,train", "rock.00000,Test"], "track,split", DatasetError, "unknown subset 'Test'"),
        (["nobody,train", "blues.00000,train"], "track,split", DatasetError, ": 1 track: nobody"),
        (["blues.00000,train"], "track,side", DatasetError, "no column 'split'"),
        (["blues.00000,valid"], "track,split", DatasetError, "too few tracks, 0 for training"),
    ],
)
def test_split_file_with_leaks_or_mistakes_is_refused(tmp_path, rows, columns, error, message):
    with pytest.raises(error, match=message):
        make_split(GTZAN, write(tmp_path, rows, columns))


@pytest.mark.parametrize(
    ("how", "message"), [("randm", "choose auto, random"), ("artist", "--artists"), ("random", "too few")]
)
def test_impossible_split_is_refused(how, message):
    with pytest.raises(DatasetError, match=message):
        make_split(make_dataset(Track("a", "x")), how)


def test_leak_check_finds_a_track_in_two_subsets():
    with pytest.raises(LeakError, match=r"track: blues\.00000"):
        check_leakage(Split("own", ("blues.00000",), ("blues.00000",)), GTZAN.tracks, artists=False)


def test_folds_are_disjoint_by_artist_and_cover_all_known_artists():
    folds = artist_kfold(GTZAN.tracks, 5)
    evaluated = [name for fold in folds for name in fold.valid]
    assert sorted(evaluated) == sorted(set(evaluated)) and all(BY_ID[name].artist for name in evaluated)
    for fold in folds:
        assert len(fold.train) + len(fold.valid) == 1000
        check_leakage(fold, GTZAN.tracks, artists=True)
    with pytest.raises(DatasetError, match="too few known artists, 244, for 500 folds"):
        artist_kfold(GTZAN.tracks, 500)
