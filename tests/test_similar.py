"""Similar songs: the nearest embeddings in a library's table, never the same recording twice."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from musicclass import tagger
from musicclass.errors import LibraryError
from musicclass.library.similar import SAME_RECORDING, SongIndex, playlist
from tests.conftest import RATE, make_music, make_noise
from tests.serving import running


def make_rows(embeddings):
    return [
        {"file": f"/music/{i}.mp3", "genre": "rock", "duration": 60.0 + i, "embedding": embedding}
        for i, embedding in enumerate(embeddings)
    ]


def make_columns(embeddings):
    rows = make_rows(embeddings)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} | {"embedded": np.full(len(rows), True)}


def test_nearest_songs_are_those_of_highest_cosine_similarity():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 1, (300, 200)).astype(np.float32)
    query = embeddings[7] + rng.normal(0, 0.7, 200).astype(np.float32)
    unit = np.sign(embeddings) * np.abs(embeddings) ** 0.5
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    target = np.sign(query) * np.abs(query) ** 0.5
    similarity = unit @ (target / np.linalg.norm(target))
    songs = SongIndex(make_columns(embeddings)).nearest(query, 5)
    assert [song.file for song in songs] == [f"/music/{i}.mp3" for i in np.argsort(-similarity)[:5]]
    assert songs[0].file == "/music/7.mp3" and songs[0].similarity == pytest.approx(similarity[7], abs=1e-6)
    assert len(SongIndex(make_columns(embeddings)).nearest(query, 1000)) == 300


def test_the_same_recording_is_never_among_the_songs():
    rng = np.random.default_rng(1)
    first, second, third = rng.normal(0, 1, (3, 200)).astype(np.float32)
    copies = [first, first * 1.01, second, second + 0.001, third]
    songs = SongIndex(make_columns(copies)).nearest(first, 10)
    assert sorted(song.file for song in songs) == ["/music/2.mp3", "/music/4.mp3"] or sorted(
        song.file for song in songs
    ) == ["/music/3.mp3", "/music/4.mp3"]
    assert all(song.similarity < SAME_RECORDING for song in songs)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.skipif(not tagger.available(), reason="built without the tagger: python hatch_build.py")
def test_command_line(suffix, wav, tmp_path, run):
    music = tmp_path / "music"
    music.mkdir()
    for name, samples in (("a", make_music(12)), ("b", make_music(24)), ("c", make_noise(8))):
        wav(samples, RATE).rename(music / f"{name}.wav")
    table, m3u8 = tmp_path / f"genres.{suffix}", tmp_path / "list.m3u8"
    assert run("library", music, "--out", table, "--embeddings")[0] == 0
    code, out, err = run("similar", music / "a.wav", "--library", table, "--m3u8", m3u8)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 2 and "b.wav" in lines[0] and f"{m3u8} written" in err
    files = [line for line in m3u8.read_text().splitlines() if not line.startswith("#")]
    assert files == [str(music / name) for name in ("a.wav", "b.wav", "c.wav")]
    other = wav(make_music(16), RATE)
    code, out, _ = run("similar", other, "--library", table, "--top", 1)
    assert code == 0 and len(out.splitlines()) == 1
    assert "has no embeddings" in run("similar", other, "--library", table, "--model", "gtzan")[2]


@pytest.fixture
def table(tmp_path):
    """A table of five songs, the first two of which are one recording; the last has no embedding."""
    first, second, third = np.random.default_rng(2).normal(0, 1, (3, 200)).astype(np.float32)
    rows = make_rows([v.tolist() for v in (first, first * 1.01, second, third)] + [None])
    path = tmp_path / "genres.jsonl"
    scores = {"top_genre": "rock", "confidence": 0.5, "prob_rock": 1.0, "status": "ok"}
    path.write_text("".join(json.dumps(row | scores) + "\n" for row in rows))
    return path


def test_api_finds_the_same_songs(table):
    index = SongIndex.load(table)
    expected = [(song.file, song.similarity) for song in index.nearest_to_file("/music/0.mp3", 20)]
    assert sorted(file for file, _ in expected) == ["/music/2.mp3", "/music/3.mp3"]
    with running(library=table, ready=False) as client:
        assert client.get("/v1/library").json()["embedded"] == 4
        songs = client.get("/v1/library/similar", params={"path": "/music/0.mp3"}).json()["songs"]
        assert [(song["path"], song["similarity"]) for song in songs] == expected
        assert [song["path"] for song in songs] == [f"/music/{song['row']}.mp3" for song in songs]
        vector = json.loads(table.read_text().splitlines()[0])["embedding"]
        similar = client.post("/v1/similar?top=1", json={"embedding": vector}).json()["songs"]
        assert [song["row"] for song in similar] == [songs[0]["row"]]
        for body in ({"embedding": vector[1:]}, {"embedding": ["x"]}, {}, []):
            assert client.post("/v1/similar", json=body).json()["title"] == "invalid_request"
        for path in ("/music/4.mp3", "/elsewhere.mp3"):
            response = client.get("/v1/library/similar", params={"path": path})
            assert (response.status_code, response.json()["title"]) == (404, "no_such_song")
        table.write_text("\n".join(table.read_text().splitlines()[:3]))  # a song less
        fewer = client.get("/v1/library/similar", params={"path": "/music/0.mp3"}).json()["songs"]
        assert [song["path"] for song in fewer] == ["/music/2.mp3"]


@pytest.mark.skipif(not tagger.available(), reason="built without the tagger: python hatch_build.py")
def test_api_finds_songs_similar_to_an_upload(table, classifier, wav):
    song = wav(make_music(3))
    with running(library=table) as client:
        content = {"content": song.read_bytes()}
        vector = client.post("/v1/predict?embedding=true", **content).json()["embedding"]
        assert vector == pytest.approx(classifier.predict(song).embedding.tolist(), abs=1e-5)
        assert "embedding" not in client.post("/v1/predict", **content).json()
        expected = client.post("/v1/similar", json={"embedding": vector}).json()["songs"]
        assert len(expected) == 3 and client.post("/v1/similar", **content).json()["songs"] == expected
        assert client.post("/v1/similar", content=b"x").json()["title"] == "unreadable"


def test_tables_without_embeddings_are_refused(tmp_path):
    table = tmp_path / "genres.jsonl"
    for text, message in (
        ("", "has no embeddings"),
        (json.dumps({"file": "a"}) + "\n", "no embeddings"),
        ("x", "read"),
    ):
        table.write_text(text)
        with pytest.raises(LibraryError, match=message):
            SongIndex.load(table)
    table.write_text('{"a":' * 100_000)
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("missing.jsonl", "missing.parquet", "genres.jsonl", "pipe.csv"):
        with pytest.raises(LibraryError, match="can't be read"):
            SongIndex.load(tmp_path / name)
    assert playlist([]) == "#EXTM3U\n"
