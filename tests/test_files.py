"""Files are written whole or not at all, where a link leads, and for those who could read the old one."""

from __future__ import annotations

import os
import stat

import pytest

from musicclass.files import write_atomically, write_text


def test_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_text(path, "one")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_rights(tmp_path):
    path, mask = tmp_path / "table.csv", os.umask(0o027)
    try:
        write_text(path, "one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        with write_atomically(path) as file:
            (part,) = (item for item in tmp_path.iterdir() if item != path)
            assert stat.S_IMODE(part.stat().st_mode) == 0o600, "nobody else may read half of it, either"
            file.write(b"two")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("two", 0o600)
    finally:
        os.umask(mask)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_stays_one(tmp_path):
    real, link = tmp_path / "music" / "real.csv", tmp_path / "link.csv"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and list(real.parent.iterdir()) == [real]


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are POSIX's")
def test_a_pipe_stays_one(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "table.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(link, "one")
    assert os.read(reader, 10) == b"one" and stat.S_ISFIFO(pipe.stat().st_mode) and link.is_symlink()
    os.close(reader)


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder.csv", tmp_path / "file" / "table.csv"):
        with pytest.raises(OSError, match=r"file|folder\.csv") as caught:
            write_text(path, "one")
        assert ".part" not in str(caught.value)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder.csv"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_names_as_long_as_they_may_be(tmp_path, name):
    write_text(tmp_path / name, "one")
    assert (tmp_path / name).read_text() == "one"
