"""Atomic writes, and the expansion of names to audio files."""

from __future__ import annotations

import io
import os
import stat
from collections import Counter
from pathlib import Path

import pytest

from musicclass import audio_files
from musicclass.files import write_atomically, write_text

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


def test_interrupted_writes_leave_the_old_file(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_text(path, "one")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


@posix
def test_permissions_are_kept_also_while_writing(tmp_path):
    path, mask = tmp_path / "table.csv", os.umask(0o027)
    try:
        write_text(path, "one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        with write_atomically(path) as file:
            (temporary,) = (item for item in tmp_path.iterdir() if item != path)
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
            file.write(b"two")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("two", 0o600)
    finally:
        os.umask(mask)


@posix
def test_links_and_pipes_are_kept(tmp_path):
    target, link = tmp_path / "music" / "table.csv", tmp_path / "link.csv"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and list(target.parent.iterdir()) == [target]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "one")
    assert os.read(reader, 10) == b"one" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


def test_errors_name_the_file_not_the_temporary_one(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder.csv", tmp_path / "file" / "table.csv"):
        with pytest.raises(OSError, match=r"file|folder\.csv") as error:
            write_text(path, "one")
        assert ".part" not in str(error.value)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder.csv"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_names_of_maximal_length_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "one")
    assert (tmp_path / name).read_text() == "one"


def test_names_from_standard_input_and_addresses(monkeypatch):
    for text, names in (("a.wav\r\nb c.wav\n\n", ["a.wav", "b c.wav"]), ("a\nb.wav\0c.wav\0", ["a\nb.wav", "c.wav"])):
        monkeypatch.setattr("sys.stdin", io.StringIO(text, newline=""))
        assert list(audio_files.files(["-"])) == names
    assert list(audio_files.files(["file:///music/a%20song.mp3"])) == ["/music/a song.mp3"]


def test_folders_are_expanded_in_order_without_hidden_files(tmp_path):
    for name in ("b.wav", "a/c.MP3", "a/.hidden.wav", "a/notes.txt", "a/b/d.flac", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = list(audio_files.files([str(tmp_path), str(tmp_path / "empty"), "missing.wav", "*.nothing"]))
    expected = ["b.wav", "c.MP3", "d.flac", "empty", "missing.wav", "*.nothing"]
    assert [Path(name).name for name in names] == expected


@posix
def test_links_to_folders_are_followed_once(tmp_path):
    music = tmp_path / "music"
    for folder in (music, tmp_path / "elsewhere"):
        folder.mkdir()
    (tmp_path / "elsewhere" / "a.wav").touch()
    for name, target in (("loop", music), ("self", "self"), ("a", tmp_path / "elsewhere"), ("b", music / "a")):
        (music / name).symlink_to(target)
    assert list(audio_files.files([str(music)])) == [str(music / "a" / "a.wav")]


def test_other_files_of_folders_are_counted_by_suffix(tmp_path):
    for name in ("a.wav", "b.DSF", "c.dsf", "cover.jpg", "README", ".hidden", "genres.csv.journal"):
        (tmp_path / name).touch()
    skipped = Counter()
    assert [Path(name).name for name in audio_files.files([str(tmp_path)], skipped)] == ["a.wav"]
    assert skipped == {".dsf": 2, ".jpg": 1, "without suffix": 1}
    assert audio_files.describe_skipped(skipped) == "skipped by suffix: 2 .dsf, 1 without suffix, 1 .jpg"
