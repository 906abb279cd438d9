"""Genres that the server writes into the files of a table, and its undo."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from musicclass.library import tags
from musicclass.library.genre_tags import read_genres
from tests.serving import main_of, running, wait_for
from tests.test_audio import write_songs

HEAD = "file,genre,top_genre,confidence,duration,prob_hiphop,prob_rock,status"
# of each file: prediction, most probable genre, confidence
SONGS = {
    "sure.mp3": ("hiphop", "hiphop", 0.9),
    "corrected.flac": ("rock", "rock", 0.8),
    "weak.ogg": ("rock", "rock", 0.4),
    "unknown.wav": ("unknown", "rock", 0.7),
    "unknown but corrected.mp3": ("unknown", "rock", 0.7),
    "gone.mp3": ("rock", "rock", 0.9),
    "secret.txt": ("rock", "rock", 0.9),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_songs(tmp_path_factory.mktemp("songs"), ("mp3", "flac", "ogg", "wav"), 3)


@pytest.fixture
def folder(originals: dict[str, Path], tmp_path: Path) -> Path:
    """Songs, and their table with corrections."""
    rows = [f"{tmp_path / name},{g},{top},{p},3,{p},{1 - p},ok" for name, (g, top, p) in SONGS.items()]
    for name in SONGS:
        if name != "gone.mp3":
            shutil.copy(originals.get(Path(name).suffix[1:], originals["mp3"]), tmp_path / name)
    (tmp_path / "genres.csv").write_text("\n".join([HEAD, *rows]))
    corrected = f"{tmp_path}/corrected.flac,shoegaze,rock\n{tmp_path}/unknown but corrected.mp3,hiphop,unknown\n"
    (tmp_path / "genres.csv.corrections.csv").write_text(f"track,genre,predicted\n{corrected}")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[httpx.Client]:
    with running(library=folder / "genres.csv", write_tags=True, ready=False) as client:
        yield client


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SONGS if (folder / name).exists()}


def write(server: httpx.Client, **options: Any) -> dict[str, Any]:
    response = server.post("/v1/library/tags", json=options)
    assert response.status_code == 200, response.text
    run = response.json()
    return run | {"files": {Path(file["path"]).name: file for file in run["files"]}}


def test_tags_are_written_and_restored_byte_for_byte(server: httpx.Client, folder: Path) -> None:
    before = contents(folder)
    dry = write(server)
    assert contents(folder) == before and not list(folder.glob("*.journal")), "a dry run changes nothing"
    assert (dry["dry_run"], dry["journal"], server.get("/v1/library").json()["tags_written"]) == (True, "", False)
    expected = {"sure.mp3": "Hip-Hop", "corrected.flac": "shoegaze", "unknown but corrected.mp3": "Hip-Hop"}
    assert {name: file["after"] for name, file in dry["files"].items() if file["outcome"] == "changed"} == {
        name: [genre] for name, genre in expected.items()
    }, "corrections win"
    assert {name for name, file in dry["files"].items() if file["outcome"] == "failed"} == {"gone.mp3", "secret.txt"}

    run = write(server, dry_run=False)
    assert run["counts"] == dry["counts"] == {"changed": 3, "skipped": 0, "failed": 2}
    assert {name: read_genres(str(folder / name))[0] for name in expected} == expected
    others = before.keys() - expected.keys()
    assert {name: contents(folder)[name] for name in others} == {name: before[name] for name in others}
    assert (folder / run["journal"]).exists() and server.get("/v1/library").json()["tags_written"]
    assert write(server)["files"]["sure.mp3"]["reason"] == "has Hip-Hop"
    second = write(server, dry_run=False, rows=[0, 2], mode="replace")
    assert second["files"]["sure.mp3"]["outcome"] == second["files"]["weak.ogg"]["outcome"] == "skipped"
    assert "confidence of 40%" in second["files"]["weak.ogg"]["reason"]

    undone = server.post("/v1/library/tags/undo").json()
    assert (undone["counts"]["changed"], contents(folder)) == (3, before)
    assert server.post("/v1/library/tags/undo").status_code == 404


def test_an_undo_leaves_files_that_were_changed_since(server: httpx.Client, folder: Path) -> None:
    write(server, dry_run=False, rows=[0, 1])
    (folder / "sure.mp3").write_bytes(b"another")
    undone = server.post("/v1/library/tags/undo").json()
    assert undone["counts"] == {"changed": 1, "skipped": 0, "failed": 1}
    assert (folder / "sure.mp3").read_bytes() == b"another" and list(folder.glob("*.journal"))


def test_requests_that_write_no_tags(server: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, began, may_end = contents(folder), threading.Event(), threading.Event()
    foreign = {"Origin": "http://elsewhere.example"}
    for body, headers, status in (
        ({"rows": [99]}, {}, 404), ({"rows": [-1]}, {}, 422), ({"mode": "all"}, {}, 422), ({}, foreign, 403),
        ({"revision": "another"}, {}, 409),
    ):  # fmt: skip
        response = server.post("/v1/library/tags", json={"dry_run": False, **body}, headers=headers)
        assert response.status_code == status

    def wait(*_: object, **__: object) -> None:
        began.set()
        may_end.wait(30)

    monkeypatch.setattr(tags, "apply_change", wait)
    thread = threading.Thread(target=write, args=(server,), kwargs={"dry_run": False, "rows": [0]})
    thread.start()
    wait_for(began.is_set)
    assert server.post("/v1/library/tags", json={}).json()["title"] == "busy"
    may_end.set()
    thread.join()
    assert contents(folder) == before


def test_no_tags_are_written_by_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(library=folder / "genres.csv", ready=False) as client:
        assert client.get("/v1/library").json()["write_tags"] is False
        assert client.post("/v1/library/tags", json={}).status_code == 404
    assert main_of("serve", "--write-tags") == 2 and "needs --library" in capsys.readouterr().err
