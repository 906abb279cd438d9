"""A library's table in the server: its map, its songs, their sound, and corrections that become labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from musicclass.datasets import open_dataset
from musicclass.errors import DatasetError, LibraryError
from musicclass.library.writers import original_path
from musicclass.web.collection import SMALL, Collection, Corrections, project, short
from tests.conftest import RATE, make_music, make_noise, make_tone
from tests.serving import main_of, running, tried_by_schemathesis

HEAD = "path,genre,best_guess,confidence,duration,p_jazz,p_rock,status"
ROWS = ["/m/a.mp3,jazz,jazz,0.9,10,0.9,0.1,ok", "/m/b.mp3,unknown,rock,0.2,20,0.4,0.6,ok", "/m/c.mp3,,,,,,,unreadable"]


@pytest.fixture(scope="module", params=["parquet", "csv", "jsonl"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three sounds and a broken file, made by the program itself."""
    root = tmp_path_factory.mktemp("music")
    for name, sound in (("music", make_music()), ("noise", make_noise()), ("tone", make_tone(440))):
        soundfile.write(root / f"{name}.wav", sound, RATE)
    (root / "broken.mp3").write_bytes(b"no music")
    out = root / f"genres.{request.param}"
    assert main_of("library", str(root), "--out", str(out)) == 1  # one file is broken
    return out


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    path.write_text("\n".join([HEAD, *ROWS]))
    return path


def test_a_long_track_with_all_its_segments(small: Path) -> None:
    segments = json.dumps([{"start": i, "end": i + 3, "genre": "jazz", "p": [0.5] * 10} for i in range(2400)])
    with small.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*HEAD.split(","), "segments"])
        writer.writerow([*ROWS[0].split(","), segments])
    assert len(segments) > 131_072, "the limit of Python's reader"
    assert [song.path for song in Collection(small).songs] == ["/m/a.mp3"]


@pytest.fixture
def server(table: Path) -> Iterator[httpx.Client]:
    with running(library=table, workers=1) as client:
        yield client
    Corrections(table.with_name(table.name + ".corrections.csv")).path.unlink(missing_ok=True)


def test_a_table_of_each_kind_is_looked_at_corrected_and_heard(server: httpx.Client, table: Path) -> None:
    told = server.get("/v1/library").json()
    assert (told["songs"], told["failed"], told["corrected"]) == (3, {"unreadable": 1}, 0)
    assert sum(told["genres"].values()) == 3
    assert len(told["model_genres"]) == 10
    placed = server.get("/v1/library/map").json()
    assert placed["rows"] == [0, 1, 2]
    assert [name.split(" / ")[-1] for name in placed["names"]] == ["music.wav", "noise.wav", "tone.wav"]
    found = server.get("/v1/library/songs", params={"text": "TONE wav"}).json()
    assert found["total"] == 1
    row = found["songs"][0]["row"]

    sound = server.get(f"/v1/library/songs/{row}/audio", headers={"Range": "bytes=0-3"})
    assert (sound.status_code, sound.content) == (206, b"RIFF")
    whole = server.get(f"/v1/library/songs/{row}/audio")
    assert whole.content == (table.parent / "tone.wav").read_bytes()

    before = table.read_bytes()
    assert server.put(f"/v1/library/songs/{row}/correction", json={"genre": "drone, slow"}).json()["correction"]
    assert server.put("/v1/library/songs/0/correction", json={"genre": "jazz"}).status_code == 200
    assert table.read_bytes() == before
    kept = server.get("/v1/library/corrections").text
    assert kept == table.with_name(table.name + ".corrections.csv").read_bytes().decode()
    assert [line["genre"] for line in csv.DictReader(kept.splitlines())] == ["jazz", "drone, slow"]
    only = server.get("/v1/library/songs", params={"corrected": True}).json()
    assert only["total"] == server.get("/v1/library").json()["corrected"] == 2
    server.delete("/v1/library/songs/0/correction")
    assert Collection(table).corrections.of(str(table.parent / "tone.wav")) == "drone, slow"
    assert len(Collection(table).corrections) == 1


def test_corrections_are_labels_to_train_on(table: Path) -> None:
    collection = Collection(table)
    for song, genre in zip(collection.songs, ("jazz", "noise", "noise"), strict=True):
        collection.corrections.put(song.path, genre, song.genre)
    dataset = open_dataset(collection.corrections.path)
    assert dataset.genres == ("jazz", "noise")
    assert [track.path for track in dataset.tracks] == [Path(song.path) for song in collection.songs]
    assert all(track.content for track in dataset.tracks)
    collection.corrections.path.unlink()


def test_what_is_refused(table: Path) -> None:
    with running(library=table, workers=1) as client:
        for genre in ("unknown", "Unknown", "", " jazz", "a\nb", "x" * 101, "a\x07b"):
            assert client.put("/v1/library/songs/0/correction", json={"genre": genre}).status_code == 422
        assert client.put("/v1/library/songs/0/correction", content=b"{").status_code == 422
        assert client.put("/v1/library/songs/3/correction", json={"genre": "jazz"}).status_code == 404
        assert client.get("/v1/library/songs/99/audio").status_code == 404
        elsewhere = {"Origin": "http://elsewhere.example"}
        answer = client.put("/v1/library/songs/0/correction", json={"genre": "jazz"}, headers=elsewhere)
        assert answer.status_code == 403
    assert not table.with_name(table.name + ".corrections.csv").exists()


def test_schemathesis_finds_no_server_error_in_a_library(small: Path) -> None:
    with running(library=small, workers=1) as client:
        assert tried_by_schemathesis(client) > 100


def test_only_audio_that_the_table_names_is_sent(small: Path) -> None:
    secret = small.parent / "secret.txt"
    secret.write_text("private")
    rows = [f"{secret},jazz,jazz,0.9,10,0.9,0.1,ok", "s3://bucket/a.mp3,jazz,jazz,0.9,10,0.9,0.1,ok"]
    small.write_text("\n".join([HEAD, *rows, ROWS[0]]))
    with running(library=small, workers=1) as client:
        for row in range(3):
            answer = client.get(f"/v1/library/songs/{row}/audio")
            assert answer.status_code == 404
            assert "reached" in answer.json()["detail"]


def test_a_correction_that_cannot_be_kept_is_told_and_nothing_changes(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with running(library=small, workers=1) as client:
        client.put("/v1/library/songs/0/correction", json={"genre": "blues"})
        monkeypatch.setattr("musicclass.web.collection.write_text", full)
        answer = client.put("/v1/library/songs/0/correction", json={"genre": "soul"})
        assert answer.status_code == 507
        assert "No space" in answer.json()["detail"]
        assert client.get("/v1/library/songs/0").json()["correction"] == "blues"


def test_songs_are_found_and_ordered(small: Path) -> None:
    collection = Collection(small)
    assert [song.path for song in collection.find(order="unsure")] == ["/m/b.mp3", "/m/a.mp3"]
    assert [song.path for song in collection.find(order="sure")] == ["/m/a.mp3", "/m/b.mp3"]
    assert [song.path for song in collection.find(genre="unknown")] == ["/m/b.mp3"]
    assert collection.find("nothing") == []
    collection.corrections.put("/m/b.mp3", "rock", "unknown")
    assert collection.counts() == {"jazz": 1, "rock": 1}
    assert collection.find(genre="unknown") == []
    assert [song.path for song in collection.find(corrected=False)] == ["/m/a.mp3"]


def test_projection_is_that_of_scikit_learn() -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 500).astype(np.float32)
    places, share = project(shares)
    logs = np.log(np.maximum(shares, SMALL))
    reference = PCA(2, svd_solver="full").fit(ratios := logs - logs.mean(axis=1, keepdims=True))
    expected = reference.transform(ratios)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-4)
    for axis in range(2):
        assert abs(np.corrcoef(places[:, axis], expected[:, axis])[0, 1]) == pytest.approx(1, abs=1e-5)


@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_projection_keeps_its_bounds_and_puts_equals_together(n: int, genres: int, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.full(genres, 0.2), n).astype(np.float32)
    places, share = project(np.concatenate([shares, shares]))
    assert np.isfinite(places).all()
    assert np.abs(places).max() <= 1 + 1e-5
    assert 0 <= share <= 1 + 1e-6
    np.testing.assert_allclose(places[:n], places[n:], atol=1e-4)


@pytest.mark.parametrize("name, text, word", [
    ("t.csv", "", "no song"),
    ("t.csv", HEAD, "no song"),
    ("t.csv", "\n".join([HEAD, ROWS[2]]), "no song"),
    ("t.csv", "a,b\n1,2\n", "status"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,high,10,0.9,0.1,ok", "high"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,0.9,10,nan,0.1,ok", "numbers that are none"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,nan,10,0.9,0.1,ok", "numbers that are none"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,0.9,inf,0.9,0.1,ok", "numbers that are none"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz", "table of musicclass"),
    ("t.jsonl", "{", "table of musicclass"),
    ("t.jsonl", "[]", "table of musicclass"),
    ("t.parquet", "PAR1", "table of musicclass"),
    ("t.txt", "", "ending"),
])  # fmt: skip
def test_a_table_that_is_none_is_named(tmp_path: Path, name: str, text: str, word: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LibraryError, match=word) as error:
        Collection(path)
    assert str(path) in str(error.value)


def test_a_missing_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of("serve", "--port", "0", "--library", str(tmp_path / "none.csv")) == 2
    assert "none.csv" in capsys.readouterr().err


def test_corrections_that_cannot_be_read_are_not_overwritten(small: Path) -> None:
    broken = small.with_name("small.csv.corrections.csv")
    broken.write_text("song;genre\n")
    assert len(Collection(small).corrections) == 0  # a head alone holds nothing
    broken.write_text("song;genre\na;b\n")
    with pytest.raises(LibraryError, match="move it away"):
        Collection(small)
    assert broken.read_text() == "song;genre\na;b\n"


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), min_size=1))
def test_corrections_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, genres: dict[str, str]) -> None:
    genres = {k: v for k, v in genres.items() if is_utf8(k + v)}
    path = tmp_path_factory.mktemp("c") / "c.csv"
    kept = Corrections(path)
    for name, genre in genres.items():
        kept.put(name, genre, "told")
    again = Corrections(path)
    assert {name: again.of(name) for name in genres} == genres


def test_what_others_write_into_the_corrections_stays(small: Path) -> None:
    mine, yours = Collection(small).corrections, Collection(small).corrections
    mine.put("/m/a.mp3", "blues", "jazz")
    yours.put("/m/b.mp3", "soul", "unknown")
    mine.put("/m/c.mp3", "fado", "jazz")
    assert [Corrections(mine.path).of(f"/m/{name}.mp3") for name in "abc"] == ["blues", "soul", "fado"]
    mine.path.write_text("track,genre,told,artist\n/m/a.mp3,rock,jazz,Amália\n")  # by hand
    mine.put("/m/b.mp3", "soul", "unknown")
    mine.put("/m/a.mp3", "pop", "jazz")
    assert mine.path.read_text().splitlines() == [
        "track,genre,told,artist", "/m/a.mp3,pop,jazz,Amália", "/m/b.mp3,soul,unknown,"]  # fmt: skip
    mine.path.write_text("no table\nat all\n")
    with pytest.raises(LibraryError, match="move it away"):
        mine.put("/m/a.mp3", "blues", "jazz")
    assert mine.path.read_text() == "no table\nat all\n"


def test_a_correction_for_another_table_is_refused(small: Path) -> None:
    with running(library=small, workers=1) as client:
        address = "/v1/library/songs/0/correction"
        assert client.put(address, json={"genre": "jazz", "path": "/m/b.mp3"}).status_code == 409
        assert client.delete(address, params={"path": "/m/b.mp3"}).status_code == 409
        assert client.get("/v1/library").json()["corrected"] == 0
        assert client.put(address, json={"genre": "jazz", "path": "/m/a.mp3"}).status_code == 200
        client.get("/v1/library")
        small.with_name("small.csv.corrections.csv").write_text("no table\nat all\n")
        assert client.get("/v1/library").status_code == 507


def is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(c) < 0xE000 for c in text)


def test_paths(tmp_path: Path) -> None:
    assert short("/a/b/c.mp3") == "b / c.mp3"
    assert short(r"C:\a\b\c.mp3") == "b / c.mp3"
    assert short("c.mp3") == "c.mp3"
    assert original_path(r"/a/\udcff.mp3") == "/a/\udcff.mp3"
    real = tmp_path / r"\udcff.mp3"
    real.touch()
    assert original_path(str(real)) == str(real)


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    for name in ("near/a.wav", "b.wav"):
        soundfile.write(tmp_path / name, make_noise(seed=len(name)), RATE)
    labels = tmp_path / "labels.csv"
    labels.write_text(f"track,genre,artist\nnear/a.wav,fado,Amália\n{tmp_path}/b.wav,tango,\nb.wav,tango,\nc.wav,,\n")
    found = open_dataset(labels)
    assert [(t.genre, t.artist) for t in found.tracks] == [("tango", ""), ("tango", ""), ("fado", "Amália")]
    for text, word in (("track,genre\na,b\n", "two genres"), ("path,genre\na,b\n", "track"), ("", "track")):
        labels.write_text(text)
        with pytest.raises(DatasetError, match=word):
            open_dataset(labels)
    labels.write_text(json.dumps({"no": "csv"}))
    with pytest.raises(DatasetError):
        open_dataset(labels)
