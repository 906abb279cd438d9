"""The plugin in a real beets, with a real library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutagen
import pytest
import soundfile

from musicclass.library.tags import read_genres
from tests.conftest import make_music, make_noise

pytest.importorskip("beets", reason='needs beets: pip install -e ".[dev]"')

CONFIG = """
directory: {folder}/library
library: {folder}/library.db
plugins: musicclass
import: {{copy: yes, write: yes, autotag: no, quiet: yes}}
musicclass: {{auto: {auto}, min_confidence: 0, names: {{{name}: Mine}}}}
"""


@pytest.fixture
def beet(tmp_path: Path, classifier):
    """Run beets on an album of three tracks, one of which has a genre and one of which can't be heard."""
    album = tmp_path / "album"
    album.mkdir()
    for name, music in (("one", make_music(12)), ("two", make_music(14)), ("short", make_noise(0.4))):
        soundfile.write(album / f"{name}.flac", music, 22_050)
        file = mutagen.File(album / f"{name}.flac")
        file.update({"title": name, "album": "An album", "artist": "Someone"})
        if name == "two":
            file["genre"] = ["Zydeco"]
        file.save()
    best = classifier.predict(album / "one.flac").best_guess

    def run(*arguments: str, auto: str = "yes") -> str:
        settings = tmp_path / "config.yaml"
        settings.write_text(CONFIG.format(folder=tmp_path, auto=auto, name=best))
        command = [sys.executable, "-m", "beets", "-c", str(settings), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_home(tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.album = str(album)
    return run


def _home(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "BEETSDIR": str(folder), "HOME": str(folder)}


def sources(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def genres(beet) -> dict[str, str]:
    return dict(line.split("|") for line in beet("ls", "-f", "$title|$genres").splitlines())


def test_import_fills_in_what_is_missing(beet, tmp_path):
    originals = sources(tmp_path / "album")
    beet("import", beet.album)
    assert genres(beet) == {"one": "Mine", "two": "Zydeco", "short": ""}
    assert sources(tmp_path / "album") == originals, "the files that were copied are as they were"
    beet("write")
    (written,) = (tmp_path / "library").rglob("*one.flac")
    assert read_genres(str(written)) == ("Mine",)
    assert beet("ls", "-a", "-f", "$genres").strip() in ("Mine", "Zydeco")


def test_command(beet, tmp_path):
    beet("import", beet.album, auto="no")
    assert genres(beet) == {"one": "", "two": "Zydeco", "short": ""}
    assert "none -> Mine" in beet("musicclass", "--pretend", auto="no")
    assert genres(beet)["one"] == ""
    beet("musicclass", "title:one", auto="no")
    assert genres(beet) == {"one": "Mine", "two": "Zydeco", "short": ""}
    beet("musicclass", "--append", "title:two", auto="no")
    assert genres(beet)["two"].startswith("Zydeco") and genres(beet)["two"] != "Zydeco"
    beet("musicclass", "--replace", auto="no")
    assert "Zydeco" not in genres(beet)["two"] and genres(beet)["short"] == ""
    (written,) = (tmp_path / "library").rglob("*two.flac")
    assert "Zydeco" not in read_genres(str(written))
