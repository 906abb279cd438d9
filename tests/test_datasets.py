"""One contract for all data sets, then what is particular to each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicclass.config import FeatureConfig
from musicclass.datasets import Dataset, archive, folder, gtzan, open_dataset
from musicclass.datasets.splits import make_split
from musicclass.errors import DatasetError, LeakError
from musicclass.features import log_mel
from tests.conftest import RATE, make_noise, make_tone, script

CONFIG = FeatureConfig()


def make_tree(root: Path, names: list[str]) -> Path:
    """Audio files by name, each with a sound of its own."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            root / name, make_noise(1.5, seed=number), RATE, subtype="FLOAT" if name.endswith("wav") else None
        )
    return root


def make_folder(root: Path) -> Dataset:
    return folder.read(make_tree(root / "mine", ["fado/a.wav", "fado/deep/b.flac", "tango/c.wav", "tango/d.WAV"]))


def make_gtzan(root: Path) -> Dataset:
    names = ["blues/blues.00000.wav", "blues/blues.00001.wav", "rock/rock.00099.flac", "jazz/jazz.00054.wav"]
    return gtzan.read(make_tree(root / "genres_original", names))


def make_archive(root: Path) -> Dataset:
    source = make_folder(root)
    archive.write(root / "mine.npz", source.usable(source.tracks, CONFIG), CONFIG)
    return archive.read(root / "mine.npz")


@pytest.mark.parametrize("make", [make_folder, make_gtzan, make_archive])
def test_contract(make, tmp_path):
    dataset = make(tmp_path)
    ids = [track.id for track in dataset.tracks]
    assert dataset.name and len(ids) == len(set(ids)) >= 2
    assert list(dataset.genres) == sorted({track.genre for track in dataset.tracks})
    for track in dataset.tracks:
        frames = dataset.log_mel(track, CONFIG)
        assert frames.dtype == np.float32 and frames.shape == (1 + int(1.5 * RATE) // 914, CONFIG.n_bands)
        assert frames.min() >= -100 and np.isfinite(frames).all()
        assert track.genre and track.content
        np.testing.assert_array_equal(frames, dataset.log_mel(track, CONFIG))


def test_folder(tmp_path):
    dataset = make_folder(tmp_path)
    assert [t.id for t in dataset.tracks] == ["fado/a.wav", "fado/deep/b.flac", "tango/c.wav", "tango/d.WAV"]
    samples, _ = soundfile.read(dataset.tracks[0].path, dtype="float32")
    np.testing.assert_array_equal(dataset.log_mel(dataset.tracks[0], CONFIG), log_mel(samples, CONFIG))


def test_folder_passes_over_what_is_hidden_or_no_audio(tmp_path):
    root = make_tree(tmp_path, ["a/1.wav", "b/2.wav", "b/.hidden.wav", ".git/3.wav"])
    (root / "b" / "notes.txt").write_text("no music")
    (root / "top.wav").write_bytes(b"")
    assert [track.id for track in folder.read(root).tracks] == ["a/1.wav", "b/2.wav"]


def test_artists_from_a_csv(tmp_path):
    root = make_tree(tmp_path / "x", ["a/1.wav", "b/2.wav"])
    table = tmp_path / "artists.csv"
    table.write_text("track,artist\na/1.wav,Amália\n")
    assert [track.artist for track in folder.read(root, table).tracks] == ["Amália", ""]
    table.write_text("track,singer\na/1.wav,Amália\n")
    with pytest.raises(DatasetError, match="artist"):
        folder.read(root, table)
    table.write_text("track,artist\na/1.wav,x\na/1.wav,y\n")
    with pytest.raises(DatasetError, match="twice"):
        folder.read(root, table)


def test_artists_of_accents_spelt_otherwise_and_of_tracks_that_are_not_here(tmp_path):
    """macOS and archives write an accent as a character of its own; a typo must not make an artist unknown unseen."""
    root = make_tree(tmp_path / "x", ["fado/Cafe\u0301.wav", "tango/2.wav"])
    table = tmp_path / "artists.csv"
    table.write_text("track,artist\nfado/Caf\u00e9.wav,Amália\ntango/3.wav,Gardel\n,\n")
    dataset = folder.read(root, table)
    assert [track.artist for track in dataset.tracks] == ["Amália", ""]
    assert dataset.notes == (f"{table}: 1 of its 2 tracks are not here, such as tango/3.wav",)
    table.write_text("track,split,artist\nfado/Caf\u00e9.wav,train,x\ntango/2.wav,valid,x\n,,\n")
    with pytest.raises(LeakError, match="artist x"):
        make_split(dataset, str(table))


def test_names_that_differ_by_their_accents_alone():
    one, other = "a/Cafe\u0301.wav", "a/Caf\u00e9.wav"
    assert folder.matched({one: "x", other: "y"}, [one, other]) == ({one: "x", other: "y"}, [])
    assert folder.matched({one: "x", "b": "z"}, [other]) == ({other: "x"}, ["b"])


def test_one_genre_is_not_enough(tmp_path):
    with pytest.raises(DatasetError, match="at least two"):
        folder.read(make_tree(tmp_path, ["a/1.wav", "a/2.wav"]))


def test_a_bad_file_is_left_out_with_a_warning(tmp_path):
    root = make_tree(tmp_path, ["a/1.wav", "b/2.wav"])
    (root / "b" / "broken.mp3").write_bytes(b"no music")
    dataset = folder.read(root)
    with pytest.warns(UserWarning, match=r"broken\.mp3 is left out"):
        assert len(list(dataset.usable(dataset.tracks, CONFIG))) == 2


def test_features_that_cannot_be_kept_are_no_reason_to_stop(tmp_path, monkeypatch):
    dataset = folder.read(make_tree(tmp_path / "x", ["a/1.wav", "b/2.wav"]))
    (tmp_path / "file").touch()
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="MUSICCLASS_CACHE"):
        assert len(list(dataset.usable(dataset.tracks, CONFIG))) == 2


def test_gtzan_knows_its_tracks(tmp_path):
    dataset = make_gtzan(tmp_path)
    assert [track.id for track in dataset.tracks] == ["blues.00000", "blues.00001", "rock.00099"]
    assert dataset.tracks[0].artist == "John Lee Hooker"
    assert "jazz.00054.wav is left out" in dataset.notes[0]
    assert "996 of GTZAN's 1,000 tracks are missing: blues.00002-00099, classical.00000-00099" in dataset.notes[1]
    assert dataset.notes[1].endswith("rock.00000-00098")
    assert open_dataset(tmp_path / "genres_original").name == "gtzan"


def test_gtzans_index():
    index = gtzan.index()
    assert len(index) == 1000 and set(gtzan.GENRES) == {name.split(".")[0] for name in index}
    splits = [entry.filtered_split for entry in index.values()]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 443, "valid": 197, "test": 290, "excluded": 70}
    hashes = [entry.sha256_wav for entry in index.values()]
    assert len(hashes) - len(set(hashes)) == 14


def test_gtzan_that_is_none(tmp_path):
    with pytest.raises(DatasetError, match="no GTZAN track"):
        gtzan.read(tmp_path)


def test_features_are_cached_by_content_and_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path / "cache"))
    dataset = make_folder(tmp_path)
    track = dataset.tracks[0]
    first = dataset.log_mel(track, CONFIG)
    stored = list((tmp_path / "cache").rglob("*.npy"))
    assert len(stored) == 1
    dataset.log_mel(track, FeatureConfig(hop_length=512))
    soundfile.write(track.path, make_tone(440), RATE)
    assert not np.array_equal(dataset.log_mel(track, CONFIG)[:30], first[:30])
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 3
    stored[0].write_bytes(b"broken")
    dataset.log_mel(track, CONFIG)


def test_an_archive_gives_what_the_files_give(tmp_path):
    dataset = make_archive(tmp_path)
    source = folder.read(tmp_path / "mine")
    for ours, theirs in zip(dataset.tracks, source.tracks, strict=True):
        assert (ours.id, ours.genre, ours.content) == (theirs.id, theirs.genre, theirs.content)
        assert np.abs(dataset.log_mel(ours, CONFIG) - source.log_mel(theirs, CONFIG)).max() < 0.05  # float16


def test_the_lowest_bands_of_an_archive_will_do(tmp_path):
    dataset = make_archive(tmp_path)
    track, fewer = dataset.tracks[0], dataclasses.replace(CONFIG, n_bands=CONFIG.n_bands - 20)
    np.testing.assert_array_equal(dataset.log_mel(track, fewer), dataset.log_mel(track, CONFIG)[:, :-20])
    with pytest.raises(DatasetError, match="n_bands"):
        dataset.log_mel(track, dataclasses.replace(CONFIG, n_bands=CONFIG.n_bands + 1))


def test_archives_refuse_other_settings(tmp_path):
    dataset = make_archive(tmp_path)
    with pytest.raises(DatasetError, match="hop_length"):
        dataset.log_mel(dataset.tracks[0], FeatureConfig(hop_length=512))
    dataset.log_mel(dataset.tracks[0], FeatureConfig(n_mfcc=20, window_seconds=5))


def test_broken_archives(tmp_path):
    make_archive(tmp_path)
    good = dict(np.load(tmp_path / "mine.npz"))
    bad = tmp_path / "bad.npz"
    for change in (
        {"n_frames": good["n_frames"][:-1]},
        {"ids": good["ids"][[0] * 4]},
        {"log_mel": good["log_mel"][:, :9]},
    ):
        np.savez(bad, **(good | change))
        with pytest.raises(DatasetError, match="make it anew"):
            archive.read(bad)
    np.savez(bad, **(good | {"ids": np.array([{}], dtype=object)}))
    with pytest.raises(DatasetError, match="not an archive"):
        archive.read(bad)
    for content in (b"", b"PK\x03\x04", (tmp_path / "mine.npz").read_bytes()[:-100]):
        bad.write_bytes(content)
        with pytest.raises(DatasetError, match="not an archive"):
            archive.read(bad)
    with pytest.raises(DatasetError, match="exists"):
        archive.write(bad, [], CONFIG)
    with pytest.raises(DatasetError, match="no track"):
        archive.write(tmp_path / "none.npz", [], CONFIG)


def test_open_dataset_refuses_what_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="no such"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="unknown kind"):
        open_dataset(tmp_path, "magic")


def test_convert_logmel(tmp_path, monkeypatch, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 127, 721), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", ids=np.array(["blues.00000", "60s_high_01"]), X=pictures)
    convert = script("scripts/convert_logmel.py")
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path / "in.npz"), str(tmp_path / "out.npz")])
    assert convert.main() == 0
    dataset = archive.read(tmp_path / "out.npz")
    assert [(t.genre, t.artist) for t in dataset.tracks] == [("blues", "John Lee Hooker"), ("60s", "")]
    frames = dataset.log_mel(dataset.tracks[1], FeatureConfig(n_bands=127))
    np.testing.assert_allclose(frames / 80 + 1, pictures[1].T / 255, atol=5e-4)
    (tmp_path / "out.npz").unlink()
    np.savez(tmp_path / "in.npz", ids=np.array(["a"]), X=pictures)
    assert convert.main() == 1
    assert "must be uint8" in capsys.readouterr().err
