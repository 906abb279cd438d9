"""A library's table in the server: songs, map, audio, and corrections that become labels."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import schemathesis
import soundfile
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from musicclass.audio_files import unescape_path
from musicclass.datasets import open_dataset
from musicclass.errors import LibraryError
from musicclass.library import corrections
from musicclass.library.read_table import read_columns
from musicclass.library.table import write
from musicclass.server.library_table import LibraryTable, short_name
from tests.conftest import RATE, make_music, make_noise, make_tone
from tests.serving import main_of, running
from tests.test_audio import write_songs

HEAD = "file,genre,top_genre,confidence,duration,prob_jazz,prob_rock,status"
PNG = b"\x89PNG\r\n\x1a\n and the rest"
ROWS = ["/m/a.mp3,jazz,jazz,0.9,10,0.9,0.1,ok", "/m/b.mp3,unknown,rock,0.2,20,0.4,0.6,ok", "/m/c.mp3,,,,,,,unreadable"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A table whose last column is longer than the default limit of Python's reader."""
    path = tmp_path / "small.csv"
    path.write_text("\n".join([f"{HEAD},segments", *(f"{row},{'x' * 140_000}" for row in ROWS)]))
    return path


@pytest.fixture
def server(small: Path) -> Iterator[httpx.Client]:
    with running(library=small, ready=False) as client:
        yield client


def corrections_of(table: Path) -> Path:
    return table.with_name(table.name + ".corrections.csv")


def read_map(data: bytes) -> tuple[dict, np.ndarray]:
    """The header, and the columns as one structured array."""
    start = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start])
    columns, n = {}, header["songs"]
    types = {"position": ("<f4", 2), "year": ("<u2", 1), "genre": ("u1", 1), "confidence": ("u1", 1), "tag": ("u1", 1)}
    for name, (kind, width) in types.items():
        columns[name] = np.frombuffer(data, kind, n * width, start).reshape(n, width).squeeze(1 if width == 1 else ())
        start += columns[name].nbytes
    assert start == len(data)
    return header, columns


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_table_of_the_library_command(tmp_path, suffix):
    """Browse, play and correct; then train on the corrections."""
    for name, samples in (("music", make_music()), ("noise", make_noise()), ("tone", make_tone(440))):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    (tmp_path / "broken.mp3").write_bytes(b"not audio")
    table = tmp_path / f"genres.{suffix}"
    assert main_of("library", str(tmp_path), "--out", str(table)) == 1  # one file is broken
    before = table.read_bytes()
    with running(library=table, ready=False) as client:
        overview = client.get("/v1/library").json()
        assert (overview["songs"], overview["failed"], overview["corrected"]) == (3, {"unreadable": 1}, 0)
        assert sum(overview["genres"].values()) == 3 and len(overview["model_genres"]) == 12
        header, columns = read_map(client.get("/v1/library/map").content)
        assert header["songs"] == 3 and len(set(map(tuple, columns["position"].tolist()))) == 3
        matching = client.get("/v1/library/songs", params={"text": "TONE wav"}).json()
        assert [song["row"] for song in matching["songs"]] == [2]
        audio = client.get("/v1/library/songs/2/audio", headers={"Range": "bytes=0-3"})
        assert (audio.status_code, audio.content) == (206, b"RIFF")
        assert client.get("/v1/library/songs/2/audio").content == (tmp_path / "tone.wav").read_bytes()
        for song, genre in ((0, "jazz"), (1, "drone, slow"), (2, "drone, slow")):
            response = client.put(f"/v1/library/songs/{song}/correction", json={"genre": genre})
            assert response.json()["correction"] == genre
        assert client.get("/v1/library/corrections").content == corrections_of(table).read_bytes()
        assert client.get("/v1/library/songs", params={"corrected": True}).json()["total"] == 3
    assert table.read_bytes() == before
    dataset = open_dataset(corrections_of(table))
    assert dataset.genres == ("drone, slow", "jazz")
    assert {track.path.name for track in dataset.tracks} == {"music.wav", "noise.wav", "tone.wav"}


def test_corrections_are_validated_saved_and_deleted(server, small):
    address = "/v1/library/songs/0/correction"
    for genre in ("unknown", "Unknown", "", " jazz", "a\nb", "=1+1", "@x", "x" * 101, "a\x07b"):
        assert server.put(address, json={"genre": genre}).status_code == 422
    assert server.put(address, content=b"{").status_code == 422
    assert server.put("/v1/library/songs/2/correction", json={"genre": "jazz"}).status_code == 404
    foreign = server.put(address, json={"genre": "jazz"}, headers={"Origin": "http://elsewhere.example"})
    assert foreign.status_code == 403
    other_song = server.put(address, json={"genre": "jazz", "path": "/m/b.mp3"})
    assert (other_song.status_code, other_song.json()["title"]) == (409, "another_song")
    assert server.delete(address, params={"path": "/m/b.mp3"}).status_code == 409
    assert not corrections_of(small).exists()
    assert server.put(address, json={"genre": "blues", "path": "/m/a.mp3"}).json()["correction"] == "blues"
    with corrections_of(small).open() as file:
        assert list(csv.DictReader(file)) == [{"track": "/m/a.mp3", "genre": "blues", "predicted": "jazz"}]
    assert server.get("/v1/library").json()["genres"] == {"blues": 1, "unknown": 1}
    assert server.delete(address).json()["correction"] is None
    assert server.get("/v1/library").json()["corrected"] == 0
    corrections_of(small).write_text("not a table\nat all\n")
    unreadable = server.get("/v1/library")
    assert (unreadable.status_code, unreadable.json()["title"]) == (507, "unreadable")


def test_correction_that_cannot_be_saved_changes_nothing(server, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.put("/v1/library/songs/0/correction", json={"genre": "blues"})
    monkeypatch.setattr(corrections, "write_text", fail)
    response = server.put("/v1/library/songs/0/correction", json={"genre": "soul"})
    assert response.status_code == 507 and "No space" in response.json()["detail"]
    assert server.get("/v1/library/songs/0").json()["correction"] == "blues"


def test_only_local_audio_of_the_table_is_served(small):
    secret = small.parent / "secret.txt"
    secret.write_text("private")
    rows = [f"{secret},jazz,jazz,0.9,10,0.9,0.1,ok", "s3://bucket/a.mp3,jazz,jazz,0.9,10,0.9,0.1,ok", ROWS[0]]
    small.write_text("\n".join([HEAD, *rows]))
    with running(library=small, ready=False) as client:
        for row in range(3):
            response = client.get(f"/v1/library/songs/{row}/audio")
            assert (response.status_code, response.json()["title"]) == (404, "out_of_reach")
        assert client.get("/v1/library/songs/3/audio").json()["title"] == "no_such_song"


def _add_cover(path: Path, mime: str, data: bytes) -> None:
    """Put an image into the tags of a file."""
    mutagen = pytest.importorskip("mutagen")
    from mutagen import flac, id3, mp4

    image = flac.Picture()
    image.type, image.mime, image.data = 3, mime, data
    file = mutagen.File(path)
    if path.suffix == ".flac":
        file.add_picture(image)
    elif path.suffix == ".ogg":
        file["metadata_block_picture"] = base64.b64encode(image.write()).decode()
    elif path.suffix == ".m4a":
        file["covr"] = [mp4.MP4Cover(data)]
    else:
        file.add_tags()
        file.tags.add(id3.APIC(mime="image/png", type=4, data=b"of the back"))
        file.tags.add(id3.APIC(mime=mime, type=3, data=data))
    file.save()


COVERS = {  # suffix: the type that the tag names, the image, its type
    "mp3": ("image/svg+xml", b"\xff\xd8\xff\xe0 JFIF", "image/jpeg"), "flac": ("image/jpeg", PNG, "image/png"),
    "ogg": ("image/png", b"RIFF\4\0\0\0WEBPVP8 ", "image/webp"), "m4a": ("", b"GIF89a", "image/gif"),
    "wav": ("image/png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", None), "aiff": ("", b"", None),
}  # fmt: skip


def test_covers_are_images_by_their_bytes(tmp_path):
    files = write_songs(tmp_path, COVERS, 1)
    rows = [f"{path},jazz,jazz,0.9,10,0.9,0.1,ok" for path in (*files.values(), tmp_path / "missing.mp3")]
    (tmp_path / "t.csv").write_text("\n".join([HEAD, *rows]))
    with running(library=tmp_path / "t.csv", ready=False) as client:
        for row, (suffix, (mime, data, media_type)) in enumerate(COVERS.items()):
            if data:
                _add_cover(files[suffix], mime, data)
            cover = client.get(f"/v1/library/songs/{row}/cover")
            assert (cover.status_code, cover.content) == ((200, data) if media_type else (204, b"")), suffix
            assert cover.headers.get("content-type") == media_type
            assert cover.headers["x-content-type-options"] == "nosniff" and "private" in cover.headers["cache-control"]
        assert client.get(f"/v1/library/songs/{len(COVERS)}/cover").status_code == 204, "its file is missing"
        assert client.get("/v1/library/songs/0/cover?revision=0").status_code == 409


@pytest.mark.slow
def test_responses_conform_to_openapi(server):
    """Of all routes, to requests derived from the description."""
    load_all_checks()
    names = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
    checks, cases = CHECKS.get_by_names(list(names)), []
    schema = schemathesis.openapi.from_url(f"{server.base_url}/openapi.json")
    schema.validate()
    for operation in schema.get_all_operations():

        @settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.ok().as_strategy())
        def check(case):
            cases.append(case)
            case.call_and_validate(base_url=str(server.base_url), checks=checks)

        check()
    assert len(cases) > 100


def test_songs_are_found_and_ordered(small):
    table = LibraryTable(small)
    a, b = table.tracks()
    assert table.find(order="least_confident").tolist() == [1, 0]
    for order in ("most_confident", "path", "genre"):
        assert table.tracks(table.find(order=order)) == [a, b]
    assert table.tracks(table.find(genre="unknown")) == [b]
    assert table.find("nothing").tolist() == []
    table.corrections.write([("/m/b.mp3", "unknown")], "rock")
    assert table.counts() == {"jazz": 1, "rock": 1}
    assert table.find(genre="unknown").tolist() == []
    assert table.tracks(table.find(corrected=False)) == [a]
    assert [track.correction for track in table.tracks(table.find(corrected=True))] == ["rock"]


def test_songs_whose_genre_is_not_in_their_tags(tmp_path):
    tags = {"jazz": "Acid Jazz; Pop", "hiphop": "Hip-Hop", "rock": "Pop", "unknown": "Pop", "blues": ""}
    path = tmp_path / "t.csv"
    rows = [
        f"/m/{i}.mp3,{genre},rock,0.5,10,1,ok,{tag},T{i},A,19{i}0-01,0.{i},0.0"
        for i, (genre, tag) in enumerate(tags.items())
    ]
    head = "file,genre,top_genre,confidence,duration,prob_rock,status,genre_tag,title,artist,year,map_x,map_y"
    path.write_text("\n".join([head, *rows]))
    table = LibraryTable(path)
    assert [track.genre for track in table.tracks(table.find(disagreeing=True))] == ["rock"]
    assert [(track.name, track.year) for track in table.tracks([1])] == [("A – T1", 1910)]
    columns = read_map(table.map())[1]
    assert columns["year"].tolist() == [1900, 1910, 1920, 1930, 1940]
    np.testing.assert_allclose(columns["position"], [[i / 10, 0] for i in range(5)], rtol=1e-6)


def test_selections_are_labelled_and_exported(server, small):
    revision = server.get("/v1/library").json()["revision"]
    playlist = server.post("/v1/library/playlist", json={"rows": [1, 0], "revision": revision})
    assert playlist.text.splitlines()[2::2] == ["/m/b.mp3", "/m/a.mp3"]
    saved = server.put("/v1/library/corrections", json={"rows": [0, 1], "genre": "soul", "revision": revision})
    assert saved.json() == {"songs": 2}
    header, columns = read_map(server.get("/v1/library/map").content)
    assert header["genres"] == ["soul"] and columns["genre"].tolist() == [0, 0]
    assert columns["confidence"].tolist() == [229, 51]
    assert np.frombuffer(server.get("/v1/library/rows", params={"genre": "soul"}).content, "<u4").tolist() == [1, 0]
    server.put("/v1/library/corrections", json={"rows": [1], "genre": None})
    assert [song["correction"] for song in server.get("/v1/library/songs?rows=1&rows=0").json()["songs"]] == [
        None,
        "soul",
    ]
    for rows, genre, status in (([], "soul", 422), ([2], "soul", 404), ([0], "unknown", 422)):
        assert server.put("/v1/library/corrections", json={"rows": rows, "genre": genre}).status_code == status
    small.write_text(small.read_text() + "\n" + ROWS[0].replace("/a.", "/0."))
    stale = server.post("/v1/library/playlist", json={"rows": [0], "revision": revision})
    assert stale.status_code == 409 and server.get("/v1/library").json()["songs"] == 3, "it is read again"
    small.write_text("no table")
    assert server.get("/v1/library").json()["songs"] == 3


@pytest.mark.parametrize(("name", "text", "detail"), [
    ("t.csv", f"{HEAD}\n{ROWS[2]}", "none of its files has a genre"),
    ("t.csv", "a,b\n1,2\n", "column 'status' is missing"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,high,10,0.9,0.1,ok", "high"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz,jazz,0.9,10,nan,0.1,ok", "finite"),
    ("t.csv", f"{HEAD}\n/m/a.mp3,jazz", "table of musicclass"),
    ("t.jsonl", "{", "table of musicclass"),
    ("t.parquet", "PAR1", "table of musicclass"),
    ("t.csv", None, "(No such file or directory)"),
    ("t.jsonl", "[" * 100_000, "nested too deeply"),
    ("t.jsonl", "[1]", "isn't an object"),
    ("t.csv", f"{HEAD}\n/{'a' * 100_000},jazz,jazz,0.9,10,0.9,0.1,ok", "100,001 characters"),
    ("t.txt", "", "end in .parquet, .csv or .jsonl"),
])  # fmt: skip
def test_invalid_tables_are_rejected(tmp_path, capsys, name, text, detail):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    assert main_of("serve", "--port", "0", "--library", str(path)) == 2
    error = capsys.readouterr().err
    assert str(path) in error and detail in error


def test_formats_have_the_same_columns(tmp_path):
    pytest.importorskip("pyarrow")
    names = ["file", "confidence", "year", "embedding", "status", "modified"]
    rows = [dict(zip(names, values, strict=True)) for values in (
        ("/a.mp3", 0.5, 1990, [1.0, 2.0], "ok", None), ("/b.mp3", None, None, None, "unreadable", None),
    )]  # fmt: skip
    paths = [tmp_path / name for name in ("t.parquet", "t.jsonl")]
    for path in paths:
        write(path, iter(rows), names)
    parquet, jsonl = map(read_columns, paths)
    assert {*parquet} == {*jsonl} == {*names, "embedded"}
    for name in ("confidence", "year", "embedded", "embedding"):
        np.testing.assert_array_equal(parquet[name].astype(float), jsonl[name].astype(float))
    assert parquet["embedding"].tolist() == [[1, 2]] and parquet["embedded"].tolist() == [True, False]
    assert parquet["status"].tolist() == jsonl["status"].tolist() == ["ok", "unreadable"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_and_folders_are_refused_at_once(tmp_path, capsys):
    os.mkfifo(tmp_path / "t.csv")
    for path, detail in ((tmp_path / "t.csv", "not a regular file"), (".", "has to end in .parquet")):
        assert main_of("serve", "--port", "0", "--library", str(path)) == 2
        assert detail in capsys.readouterr().err


def test_edits_of_others_to_the_corrections_are_kept(small):
    corrections = LibraryTable(small).corrections
    corrections.path.write_text("track,genre,predicted,artist\n/m/a.mp3,rock,jazz,Amália\n", encoding="utf-8")
    corrections.write([("/m/b.mp3", "unknown")], 'so"ul, neo')
    corrections.write([("/m/a.mp3", "jazz")], "pop")
    assert corrections.read() == {"/m/a.mp3": "pop", "/m/b.mp3": 'so"ul, neo'}
    assert corrections.text().splitlines() == [
        "track,genre,predicted,artist", "/m/a.mp3,pop,jazz,Amália", '/m/b.mp3,"so""ul, neo",unknown,']  # fmt: skip
    assert corrections.text() == corrections.path.read_bytes().decode()
    corrections.path.write_text("song;genre\na;b\n")
    for read in (lambda: LibraryTable(small), lambda: corrections.write([("/m/a.mp3", "jazz")], "blues")):
        with pytest.raises(LibraryError, match="move it away"):
            read()
    assert corrections.path.read_text() == "song;genre\na;b\n"


def test_paths_in_tables(tmp_path):
    assert [short_name(path) for path in ("/a/b/c.mp3", r"C:\a\b\c.mp3", "c.mp3")] == ["b / c.mp3"] * 2 + ["c.mp3"]
    assert unescape_path(r"/a/\udcff.mp3") == "/a/\udcff.mp3"
    escaped = tmp_path / r"\udcff.mp3"
    escaped.touch()
    assert unescape_path(str(escaped)) == str(escaped)
