"""The plugin in beets, with a library of its own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mutagen
import pytest
import soundfile

from musicclass.library.genre_tags import read_genres
from tests.conftest import make_music, make_noise

Library = pytest.importorskip("beets.library", reason='needs beets: pip install -e ".[dev]"').Library

CONFIG = """
directory: {folder}/library
library: {folder}/library.db
plugins: musicclass
import: {{copy: yes, write: yes, autotag: no, quiet: yes}}
musicclass: {{auto: {auto}, min_confidence: 0, names: {{{genre}: Mine}}, library: {library}}}
"""


@pytest.fixture
def album(tmp_path) -> Path:
    """Three tracks: one without a genre, one with, and one that is too short."""
    folder = tmp_path / "album"
    folder.mkdir()
    for name, music in (("one", make_music(12)), ("two", make_music(14)), ("short", make_noise(0.4))):
        soundfile.write(folder / f"{name}.flac", music, 22_050)
        file = mutagen.File(folder / f"{name}.flac")
        file.update({"title": name, "album": "An album", "artist": "Someone"})
        if name == "two":
            file["genre"] = ["Zydeco"]
        file.save()
    return folder


@pytest.fixture
def beet(tmp_path, album, classifier):
    """Runs beets; returns what it prints."""
    genre = classifier.predict(album / "one.flac").top_genre

    def run(*arguments: str, auto: str = "yes", library: str = "null") -> str:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(folder=tmp_path, auto=auto, genre=genre, library=library))
        command = [sys.executable, "-m", "beets", "-c", str(config), *arguments]
        environment = {**os.environ, "BEETSDIR": str(tmp_path), "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.genres = lambda: {
        item.title: str(item.formatted()["genres"]) for item in Library(str(tmp_path / "library.db")).items()
    }
    return run


def test_import_fills_in_missing_genres(beet, album, tmp_path):
    originals = {path: path.read_bytes() for path in album.iterdir()}
    beet("import", str(album))
    assert beet.genres() == {"one": "Mine", "two": "Zydeco", "short": ""}
    assert {path: path.read_bytes() for path in album.iterdir()} == originals, "the copied files stay as they are"
    (written,) = (tmp_path / "library").rglob("*one.flac")
    assert read_genres(str(written)) == ("Mine",)
    assert beet("ls", "-a", "-f", "$genres").strip() in ("Mine", "Zydeco")


def test_results_and_corrections_of_a_library_are_used(beet, album, tmp_path, run):
    table = tmp_path / "genres.csv"
    run("library", album, "--out", table)
    with contextlib.closing(sqlite3.connect(f"{table}.journal")) as database, database:
        changed = "json_set(row, '$.top_genre', 'reggae', '$.prob_reggae', 2)"
        assert database.execute(f"update files set row = {changed} where not failed").rowcount == 2
    beet("import", str(album), library=str(table))
    assert beet.genres() == {"one": "Reggae", "two": "Zydeco", "short": ""}
    (path,) = (tmp_path / "library").rglob("*two.flac")
    table.with_name("genres.csv.corrections.csv").write_text(f"track,genre\n{path},Polka\n")
    beet("musicclass", "--replace", "title:two", library=str(table))
    assert beet.genres()["two"] == "Polka"


@pytest.mark.slow
def test_command_with_its_modes(beet, album, tmp_path):
    beet("import", str(album), auto="no")
    assert beet.genres() == {"one": "", "two": "Zydeco", "short": ""}
    assert "none -> Mine" in beet("musicclass", "--pretend", auto="no")
    assert beet.genres()["one"] == ""
    beet("musicclass", "title:one", auto="no")
    assert beet.genres() == {"one": "Mine", "two": "Zydeco", "short": ""}
    beet("musicclass", "--append", "title:two", auto="no")
    assert beet.genres()["two"].startswith("Zydeco") and beet.genres()["two"] != "Zydeco"
    beet("musicclass", "--replace", auto="no")
    assert "Zydeco" not in beet.genres()["two"] and beet.genres()["short"] == ""
    (written,) = (tmp_path / "library").rglob("*two.flac")
    assert "Zydeco" not in read_genres(str(written))
