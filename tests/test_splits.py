from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicclass.datasets import Dataset, Track, gtzan
from musicclass.datasets.splits import Split, artist_folds, make_split, refuse_leaks
from musicclass.errors import DatasetError, LeakError

GTZAN = Dataset("gtzan", tuple(gtzan.describe(name) for name in gtzan.index()), None)
BY_ID = {track.id: track for track in GTZAN.tracks}


def sides_of(split: Split, key) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for side, ids in split.sides().items():
        for name in ids:
            found.setdefault(key(BY_ID[name]), set()).add(side)
    return found


def test_random_is_70_15_15_in_each_genre():
    split = make_split(GTZAN, "random")
    for side, share in (("train", 70), ("valid", 15), ("test", 15)):
        counts = Counter(BY_ID[name].genre for name in split.sides()[side])
        assert all(abs(count - share) <= 1 for count in counts.values()) and len(counts) == 10
    assert make_split(GTZAN, "random") == split
    assert make_split(GTZAN, "random", seed=1) != split


def test_exact_replicas_stay_together():
    assert all(len(sides) == 1 for sides in sides_of(make_split(GTZAN, "random"), lambda t: t.content).values())


def test_artist_keeps_artists_together_and_every_genre_on_every_side():
    split = make_split(GTZAN, "artist")
    sides = sides_of(split, lambda t: t.artist)
    assert sides.pop("") == {"train"}
    assert all(len(side) == 1 for side in sides.values())
    assert all(len(side) == 1 for side in sides_of(split, lambda t: t.content).values())
    assert all(side == {"train", "valid", "test"} for side in sides_of(split, lambda t: t.genre).values())
    assert len(split.train) + len(split.valid) + len(split.test) == 1000
    assert min(len(split.valid), len(split.test)) > 100


def test_filtered_is_the_published_list():
    split = make_split(GTZAN, "filtered")
    assert [len(ids) for ids in split.sides().values()] == [443, 197, 290]
    with pytest.raises(DatasetError, match="for GTZAN"):
        make_split(Dataset("mine", (Track("a", "x"),), None), "filtered")


@given(st.lists(st.sampled_from("abc"), min_size=12, max_size=60), st.integers(0, 5))
def test_any_tracks_are_split_whole(genres, seed):
    tracks = tuple(Track(f"{i}", genre, content=str(i // 2)) for i, genre in enumerate(genres))
    split = make_split(Dataset("any", tracks, None), "random", seed)
    together = [*split.train, *split.valid, *split.test]
    assert sorted(together) == sorted(track.id for track in tracks)
    side_of = {name: side for side, ids in split.sides().items() for name in ids}
    assert all(side_of[track.id] == side_of[str(int(track.content) * 2)] for track in tracks)


def test_three_tracks_a_genre_are_enough():
    tracks = tuple(Track(f"{genre}{i}", genre) for genre in "ab" for i in range(3))
    split = make_split(Dataset("small", tracks, None))
    assert all(len(ids) == 2 for ids in split.sides().values())


def test_shares_are_rounded_to_the_nearest():
    tracks = tuple(Track(f"{i}", "a") for i in range(8))
    assert [len(ids) for ids in make_split(Dataset("eight", tracks, None)).sides().values()] == [6, 1, 1]


def test_too_few_tracks():
    with pytest.raises(DatasetError, match="too few"):
        make_split(Dataset("tiny", (Track("a", "x"),), None))


def test_unknown_split_and_unknown_artists():
    with pytest.raises(DatasetError, match="there are: random"):
        make_split(GTZAN, "randm")
    with pytest.raises(DatasetError, match="--artists"):
        make_split(Dataset("mine", (Track("a", "x"), Track("b", "y")), None), "artist")


def write(tmp_path, rows, columns="track,split"):
    path = tmp_path / "my.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return str(path)


def test_a_split_from_a_file(tmp_path):
    rows = ["blues.00000,train", "rock.00000,train", "blues.00050,valid", "rock.00050,test", "rock.00051,excluded"]
    split = make_split(GTZAN, write(tmp_path, rows))
    assert split.sides() == {
        "train": ("blues.00000", "rock.00000"), "valid": ("blues.00050",), "test": ("rock.00050",)
    }  # fmt: skip
    assert split.name == "my.csv"


def test_files_that_leak_are_refused_with_names(tmp_path):
    first, second = next((a, b) for a in GTZAN.tracks for b in GTZAN.tracks if a.id < b.id and a.content == b.content)
    path = write(tmp_path, [f"{first.id},train", f"{second.id},valid", "rock.00000,train"])
    with pytest.raises(LeakError, match=rf"replica: {first.id} \(train\) and {second.id} \(valid\)"):
        make_split(GTZAN, path)
    path = write(tmp_path, ["blues.00000,train", "blues.00000,valid"])
    with pytest.raises(DatasetError, match=r"blues\.00000 stands in it twice"):
        make_split(GTZAN, path)
    path = write(tmp_path, ["blues.00000,train,One", "rock.00000,valid,One"], "track,split,artist")
    with pytest.raises(LeakError, match="artist One"):
        make_split(GTZAN, path)


def test_artists_may_be_shared_where_nobody_asked(tmp_path):
    path = write(tmp_path, ["blues.00000,train", "blues.00001,valid"])
    assert make_split(GTZAN, path).valid == ("blues.00001",)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["nobody,train"], "track,split", "none of its tracks"),
        (["blues.00000,train", "rock.00000,Test"], "track,split", "'Test' is no side"),
        (["nobody,train", "blues.00000,train"], "track,split", "1 tracks are not in"),
        (["blues.00000,train"], "track,side", "split"),
        (["blues.00000,train"], "track,split", "too few"),
    ],
)
def test_files_that_do_not_fit(tmp_path, rows, columns, message):
    with pytest.raises(DatasetError, match=message):
        make_split(GTZAN, write(tmp_path, rows, columns))


def test_refuse_leaks_finds_a_track_on_two_sides():
    with pytest.raises(LeakError, match=r"track: blues\.00000"):
        refuse_leaks(Split("own", ("blues.00000",), ("blues.00000",)), GTZAN.tracks, artists=False)


def test_tracks_that_are_not_there_leak_nothing():
    refuse_leaks(Split("own", ("gone",), ("blues.00000",)), GTZAN.tracks, artists=True)


def test_folds_by_artist():
    folds = artist_folds(GTZAN.tracks, 5)
    judged = [name for fold in folds for name in fold.valid]
    assert len(judged) == len(set(judged)) and all(BY_ID[name].artist for name in judged)
    for fold in folds:
        assert len(fold.train) + len(fold.valid) == 1000
        refuse_leaks(fold, GTZAN.tracks, artists=True)
    with pytest.raises(DatasetError, match="too few for 500 folds"):
        artist_folds(GTZAN.tracks, 500)
