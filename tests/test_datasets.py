"""One contract for all data sets, then what is particular to each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicclass import tagger
from musicclass.config import Config, FeatureConfig
from musicclass.datasets import (
    Dataset,
    Track,
    feature_archive,
    folder,
    gtzan,
    join,
    keep_genres,
    label_csv,
    open_dataset,
)
from musicclass.datasets.splits import make_split
from musicclass.errors import DatasetError, LeakError, TooShortError
from musicclass.features import TrackFeatures, log_mel
from musicclass.training.tracks import LabelledTracks
from tests.conftest import RATE, make_noise, make_tone, script

CONFIG = FeatureConfig()


def log_mel_of(dataset: Dataset, track: Track, config: FeatureConfig) -> np.ndarray:
    return dataset.features(track, config, False).log_mel


def make_tree(root: Path, names: list[str]) -> Path:
    """Audio files with different noise."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        subtype = "FLOAT" if name.endswith("wav") else None
        soundfile.write(root / name, make_noise(1.5, seed=number), RATE, subtype=subtype)
    return root


def make_folder(root: Path) -> Dataset:
    return folder.read(make_tree(root / "mine", ["fado/a.wav", "fado/deep/b.flac", "tango/c.wav", "tango/d.WAV"]))


def make_gtzan(root: Path) -> Dataset:
    names = ["blues/blues.00000.wav", "blues/blues.00001.wav", "rock/rock.00099.flac", "jazz/jazz.00054.wav"]
    return gtzan.read(make_tree(root / "genres_original", names))


def make_labels(root: Path) -> Dataset:
    make_tree(root, ["x.wav", "sub/y.wav"])
    (root / "labels.csv").write_text(f"track,genre,artist\nx.wav,fado,Amália\n{root / 'sub/y.wav'},tango,\nz.wav,,\n")
    return label_csv.read(root / "labels.csv")


def make_archive(root: Path) -> Dataset:
    source = make_folder(root)
    feature_archive.write(root / "mine.npz", source.iter_features(source.tracks, CONFIG), CONFIG)
    return feature_archive.read(root / "mine.npz")


@pytest.mark.parametrize("make", [make_folder, make_gtzan, make_labels, make_archive])
def test_every_data_set_keeps_the_contract(make, tmp_path):
    dataset = make(tmp_path)
    ids = [track.id for track in dataset.tracks]
    assert dataset.name and len(ids) == len(set(ids)) >= 2
    assert list(dataset.genres) == sorted({track.genre for track in dataset.tracks})
    for track in dataset.tracks:
        frames = log_mel_of(dataset, track, CONFIG)
        assert frames.dtype == np.float32 and frames.shape == (1 + int(1.5 * RATE) // 914, CONFIG.n_mels_kept)
        assert frames.min() >= -100 and np.isfinite(frames).all()
        assert track.genre and track.audio_hash
        np.testing.assert_array_equal(frames, log_mel_of(dataset, track, CONFIG))


def test_folder_finds_audio_at_any_depth_and_skips_hidden_files(tmp_path):
    dataset = make_folder(tmp_path)
    root = make_tree(tmp_path / "mine", ["b/.hidden.wav", ".git/3.wav"])
    (root / "fado" / "notes.txt").write_text("not audio")
    (root / "top.wav").write_bytes(b"")
    assert [t.id for t in dataset.tracks] == ["fado/a.wav", "fado/deep/b.flac", "tango/c.wav", "tango/d.WAV"]
    assert folder.read(root).tracks == dataset.tracks
    samples, _ = soundfile.read(dataset.tracks[0].path, dtype="float32")
    np.testing.assert_array_equal(log_mel_of(dataset, dataset.tracks[0], CONFIG), log_mel(samples, CONFIG))


def test_genres_in_several_spellings_are_one_and_the_warning_names_them(tmp_path):
    names = ["Rock/1.wav", "Rock/2.wav", "rock /3.wav", "Cafe\u0301/4.wav", "Caf\u00e9/5.wav", "jazz/6.wav"]
    dataset = folder.read(make_tree(tmp_path / "x", names))
    assert dataset.genres == ("Caf\u00e9", "Rock", "jazz") and [t.genre for t in dataset.tracks].count("Rock") == 3
    assert "one genre, Rock: 'Rock', 'rock '" in dataset.warnings
    (tmp_path / "more.csv").write_text("track,genre\nx/Rock/1.wav,ROCK\nx/jazz/6.wav,Jazz\n")
    joined = join([dataset, label_csv.read(tmp_path / "more.csv")])
    assert joined.genres == ("Caf\u00e9", "Jazz", "Rock")


def test_recordings_with_two_genres_and_folders_without_audio_are_named(tmp_path):
    root = make_tree(tmp_path / "x", ["fado/a.wav", "tango/b.wav"])
    (root / "tango" / "c.wav").write_bytes((root / "fado" / "a.wav").read_bytes())
    (root / "polka").mkdir()
    assert folder.read(root).warnings == (
        "no audio files, so no genre: polka",
        "the same recording has two genres; keep one: fado/a.wav (fado) and tango/c.wav (tango)",
    )


def test_albums_that_are_links_are_followed(tmp_path):
    root = make_tree(tmp_path / "x", ["fado/a.wav", "tango/b.wav"])
    (root / "fado" / "album").symlink_to(make_tree(tmp_path / "album", ["1.wav"]), target_is_directory=True)
    assert [track.id for track in folder.read(root).tracks] == ["fado/a.wav", "fado/album/1.wav", "tango/b.wav"]


def test_one_name_of_gtzan_makes_no_gtzan_and_a_folder_above_names_the_right_one(tmp_path):
    root = make_tree(tmp_path / "data" / "mine", ["blues/blues.00000.wav", "blues/x.wav", "tango/y.wav"])
    assert open_dataset(root).genres == ("blues", "tango")
    with pytest.raises(DatasetError, match=f"its sub-folder {root} has 2: give that one"):
        open_dataset(root.parent)


@pytest.mark.parametrize(("n_usable", "error"), [(0, DatasetError), (1, DatasetError), (2, UserWarning)])
def test_genres_with_few_usable_tracks_are_refused_or_named_before_training(n_usable, error):
    def features(track, config, with_tagger):
        if track.artist == "short":
            raise TooShortError("only 0.5 s long")
        return TrackFeatures(np.zeros((50, 112), np.float32), 2.0)

    tracks = [Track(f"fado/{i}", "fado") for i in range(5)]
    tracks += [Track(f"tango/{i}", "tango", "short" if i >= n_usable else "") for i in range(9)]
    dataset = Dataset("mine", tuple(tracks), features)
    with pytest.warns() as warned:
        if error is DatasetError:
            with pytest.raises(error, match=f"few usable tracks for training: tango {n_usable}; add tracks"):
                LabelledTracks.load(dataset, [track.id for track in tracks], Config())
        else:
            assert len(LabelledTracks.load(dataset, [track.id for track in tracks], Config())) == 5 + n_usable
            assert "tango 2; expect a low recall" in str(warned[-1].message)


@pytest.mark.parametrize("name", ["unknown", " ", "a\x1b[2Jb"])
def test_names_that_no_genre_can_have_are_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="can't be the name of a genre"):
        folder.read(make_tree(tmp_path / "x", [f"{name}/1.wav", "tango/2.wav"]))


@pytest.mark.parametrize(
    ("header", "separator", "encoding"),
    [("Track,Genre", ",", "utf-8"), ("TRACK; Genre", ";", "cp1252"), ("track\tgenre", "\t", "utf-16")],
)
def test_labels_of_spreadsheets_and_of_windows_are_read(tmp_path, header, separator, encoding):
    make_tree(tmp_path, ["sub/caf\u00e9.wav", "y.wav"])
    rows = [header, f"sub\\caf\u00e9.wav{separator}fado", f"y.wav{separator}tango"]
    (tmp_path / "labels.csv").write_bytes("\r\n".join(rows).encode(encoding))
    dataset = label_csv.read(tmp_path / "labels.csv")
    assert dataset.genres == ("fado", "tango") and all(track.path.exists() for track in dataset.tracks)


def test_labels_know_artists_or_take_them_from_another_file(tmp_path):
    assert [(t.genre, t.artist) for t in make_labels(tmp_path).tracks] == [("tango", ""), ("fado", "Amália")]
    (tmp_path / "artists.csv").write_text("track,artist\nx.wav,Mariza\n")
    assert label_csv.read(tmp_path / "labels.csv", tmp_path / "artists.csv").tracks[1].artist == "Mariza"


def test_artists_match_in_either_unicode_normalization_and_unmatched_tracks_are_named(tmp_path):
    root, table = make_tree(tmp_path / "x", ["fado/Cafe\u0301.wav", "tango/2.wav"]), tmp_path / "artists.csv"
    table.write_text("track,artist\nfado/Caf\u00e9.wav,Amália\ntango/3.wav,Gardel\n,\n", encoding="utf-8")
    dataset = folder.read(root, table)
    assert [track.artist for track in dataset.tracks] == ["Amália", ""]
    assert dataset.warnings == (f"{table}: 1 of its 2 tracks are not in the data set, such as tango/3.wav",)
    table.write_text("track,split,artist\nfado/Caf\u00e9.wav,train,x\ntango/2.wav,valid,x\n,,\n", encoding="utf-8")
    with pytest.raises(LeakError, match="artist x"):
        make_split(dataset, str(table))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("track,singer\na/1.wav,x\n", "no column 'artist', but: track, singer"),
        ("track,artist\na/1.wav,x\na/1.wav,y\n", "two values of artist, x and y"),
        ("track,artist\na/1.wav,\x00\xff", "can't be read"),
    ],
)
def test_malformed_artists_are_refused(tmp_path, text, message):
    (tmp_path / "artists.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=message):
        folder.read(make_tree(tmp_path / "x", ["a/1.wav", "b/2.wav"]), tmp_path / "artists.csv")


def test_cache_depends_on_bytes_and_settings_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path / "cache"))
    dataset = make_folder(tmp_path)
    track = dataset.tracks[0]
    first = log_mel_of(dataset, track, CONFIG)
    (stored,) = (tmp_path / "cache").rglob("*.npz")
    dataset.features(track, FeatureConfig(hop_length=512), False)
    soundfile.write(track.path, make_tone(440), RATE)
    assert not np.array_equal(log_mel_of(dataset, track, CONFIG)[:30], first[:30])
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 3
    stored.write_bytes(b"broken")
    dataset.features(track, CONFIG, False)


def test_unreadable_file_and_unwritable_cache_are_warnings(tmp_path, monkeypatch):
    root = make_tree(tmp_path / "x", ["a/1.wav", "b/2.wav"])
    (root / "b" / "broken.mp3").write_bytes(b"not audio")
    dataset = folder.read(root)
    with pytest.warns(UserWarning, match=r"broken\.mp3 is skipped"):
        assert len(list(dataset.iter_features(dataset.tracks, CONFIG))) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="MUSICCLASS_CACHE"):
        assert len(list(dataset.iter_features(dataset.tracks, CONFIG))) == 2


def test_gtzan_knows_artists_and_replicas_and_names_missing_and_corrupt_tracks(tmp_path):
    dataset = make_gtzan(tmp_path)
    assert [track.id for track in dataset.tracks] == ["blues.00000", "blues.00001", "rock.00099"]
    assert dataset.tracks[0].artist == "John Lee Hooker" and dataset.name == "gtzan"
    assert "jazz.00054.wav is skipped" in dataset.warnings[0]
    assert "996 of GTZAN's 1,000 tracks are missing, the first of them blues.00002" in dataset.warnings[1]
    assert open_dataset(tmp_path / "genres_original") == dataset
    assert len(gtzan.index()) == 1000 and len({entry.sha256_wav for entry in gtzan.index().values()}) == 1000 - 14


def test_archive_has_the_features_of_the_files_or_fewer_bands_and_refuses_other_settings(tmp_path):
    dataset = make_archive(tmp_path)
    source = folder.read(tmp_path / "mine")
    for ours, theirs in zip(dataset.tracks, source.tracks, strict=True):
        assert ours == dataclasses.replace(theirs, path=None)
        assert np.abs(log_mel_of(dataset, ours, CONFIG) - log_mel_of(source, theirs, CONFIG)).max() < 0.05  # float16
    track, fewer = dataset.tracks[0], FeatureConfig(n_mels_kept=CONFIG.n_mels_kept - 20)
    np.testing.assert_array_equal(log_mel_of(dataset, track, fewer), log_mel_of(dataset, track, CONFIG)[:, :-20])
    dataset.features(track, FeatureConfig(n_mfcc=20, window_seconds=5), False)
    for setting in ({"hop_length": 512}, {"n_mels_kept": CONFIG.n_mels_kept + 1}):
        with pytest.raises(DatasetError, match=next(iter(setting))):
            dataset.features(track, FeatureConfig(**setting), False)


def test_damaged_archives_are_refused_and_none_is_overwritten(tmp_path):
    make_archive(tmp_path)
    good, bad = dict(np.load(tmp_path / "mine.npz")), tmp_path / "bad.npz"
    for name, value, message in (
        ("n_frames", good["n_frames"][:-1], "create it anew"), ("ids", good["ids"][[0] * 4], "create it anew"),
        ("log_mel", good["log_mel"][:, :9], "create it anew"),
        ("confidences", np.full(len(good["ids"]), "sure"), "unknown confidence 'sure'"),
        ("ids", np.array([{}], dtype=object), "not an archive"),
    ):  # fmt: skip
        np.savez(bad, **(good | {name: value}))
        with pytest.raises(DatasetError, match=message):
            feature_archive.read(bad)
    for content in (b"", b"PK\x03\x04", (tmp_path / "mine.npz").read_bytes()[:-100]):
        bad.write_bytes(content)
        with pytest.raises(DatasetError, match="not an archive"):
            feature_archive.read(bad)
    for path, message in ((bad, "exists"), (tmp_path / "new.npz", "no tracks")):
        with pytest.raises(DatasetError, match=message):
            feature_archive.write(path, [], CONFIG)


def test_what_is_not_a_data_set_is_refused(tmp_path):
    for path, kind, message in (
        (tmp_path / "missing", "auto", "no such"), (tmp_path, "magic", "choose archive"),
        (tmp_path, "gtzan", "no GTZAN track"), (make_tree(tmp_path / "x", ["a/1.wav"]), "folder", "two genres"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=message):
            open_dataset(path, kind)


def test_convert_logmel(tmp_path, monkeypatch, capsys):
    spectrograms = np.random.default_rng(0).integers(0, 256, (2, 127, 721), dtype=np.uint8)
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    monkeypatch.setattr("sys.argv", ["convert", str(source), str(target)])
    np.savez(source, ids=np.array(["a"]), X=spectrograms)
    convert = script("scripts/convert_logmel.py")
    assert convert.main() == 1 and "must be uint8" in capsys.readouterr().err
    np.savez(source, ids=np.array(["blues.00000", "60s_high_01"]), X=spectrograms)
    assert convert.main() == 0
    dataset = feature_archive.read(target)
    assert [(t.genre, t.artist) for t in dataset.tracks] == [("blues", "John Lee Hooker"), ("60s", "")]
    frames = log_mel_of(dataset, dataset.tracks[1], FeatureConfig(n_mels_kept=127))
    np.testing.assert_allclose(frames / 80 + 1, spectrograms[1].T / 255, atol=5e-4)
    embedding = np.ones((1, tagger.EMBEDDING_SIZE), np.float32)
    np.savez(tmp_path / "embeddings.npz", ids=np.array(["blues.00000"]), embeddings=embedding)
    monkeypatch.setattr("sys.argv", ["convert", str(source), str(tmp_path / "b.npz"), str(tmp_path / "embeddings.npz")])
    assert convert.main() == 0
    dataset = feature_archive.read(tmp_path / "b.npz")
    items = dataset.iter_features(dataset.tracks, FeatureConfig(n_mels_kept=127), with_tagger=True)
    patches = [features.patches for _, features in items]
    np.testing.assert_array_equal(patches[0].embeddings, embedding)
    assert patches[1] is None


def test_data_sets_are_joined_with_their_sources_and_unique_ids(tmp_path):
    first, second = make_folder(tmp_path / "1"), make_folder(tmp_path / "2")
    second = dataclasses.replace(
        second, name="other", tracks=tuple(dataclasses.replace(t, artist="ABBA", source="own") for t in second.tracks)
    )
    joined = join([first, second])
    assert len({track.id for track in joined.tracks}) == len(joined.tracks) == 2 * len(first.tracks)
    assert {track.source for track in joined.tracks} == {first.name, "own"}
    assert {track.artist for track in joined.tracks} == {"", "abba"}
    last = joined.tracks[-1]
    np.testing.assert_array_equal(log_mel_of(joined, last, CONFIG), log_mel_of(second, second.tracks[-1], CONFIG))
    with pytest.raises(DatasetError, match="same name and tracks"):
        join([first, first])
    genre = first.tracks[0].genre
    assert {track.genre for track in keep_genres(joined, (genre,)).tracks} == {genre}
    with pytest.raises(DatasetError, match="no tracks of polka"):
        keep_genres(joined, ("polka",))


def test_labels_may_have_sources_and_confidences(tmp_path):
    make_folder(tmp_path)
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.wav"))
    rows = [f"{path},{path.split('/')[-2]},mirex,{grade}" for path, grade in zip(paths, ["low", ""] * 9, strict=False)]
    (tmp_path / "labels.csv").write_text("\n".join(["track,genre,source,confidence", *rows]))
    tracks = open_dataset(tmp_path / "labels.csv").tracks
    assert {track.source for track in tracks} == {"mirex"} and {track.confidence for track in tracks} == {"low", ""}
    (tmp_path / "labels.csv").write_text("\n".join(["track,genre,confidence", f"{paths[0]},a,perfect"]))
    with pytest.raises(DatasetError, match="unknown confidence 'perfect'"):
        open_dataset(tmp_path / "labels.csv")
