"""A library: one row for each file, whatever the files are like and however the run ends."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import soundfile

from musicclass import LibraryError, walk
from musicclass.library.journal import Journal
from musicclass.library.report import page
from musicclass.library.run import Options, run
from musicclass.library.workers import Failure, Pool
from tests import hostile
from tests.conftest import ROOT, make_music, make_noise

TWO = Options(workers=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names of files, with nothing in them: the task makes up what they sound like."""
    place = tmp_path / "music"
    place.mkdir()
    for i in range(40):
        (place / f"song {i:02}.mp3").touch()
    return place


@pytest.fixture
def task(tmp_path: Path) -> functools.partial:
    return functools.partial(hostile.make_task, str(tmp_path / "heard.log"))


def heard(tmp_path: Path) -> list[str]:
    log = tmp_path / "heard.log"
    return log.read_text().splitlines() if log.exists() else []


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# With real audio


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("songs")
    music = make_music(12)
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(place / f"song.{ending}", music, 22_050)
    soundfile.write(place / "silent.wav", np.zeros(22_050 * 2), 22_050)
    soundfile.write(place / "short.wav", make_noise(0.5), 22_050)
    soundfile.write(place / "nan.wav", np.full(44_100, np.nan, np.float32), 22_050, subtype="FLOAT")
    (place / "broken.mp3").write_bytes(b"not music at all" * 100)
    (place / "empty.flac").touch()
    return place


def test_rows_are_what_the_classifier_says(songs, tmp_path, classifier):
    summary = run([str(songs)], tmp_path / "genres.jsonl", Options(workers=2, timeline=True))
    rows = {Path(row["path"]).name: row for row in read(tmp_path / "genres.jsonl")}
    assert len(rows) == 10 and list(rows) == sorted(rows)
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        row, told = rows[f"song.{ending}"], classifier.predict(songs / f"song.{ending}")
        assert row["status"] == "ok" and row["error"] is None and row["model"] == "gtzan"
        assert (row["genre"], row["confidence"], row["duration"]) == (told.genre, told.confidence, told.duration)
        assert {genre: row[f"p_{genre}"] for genre in told.probabilities} == told.probabilities
        assert [part["genre"] for part in row["segments"]] == [part.genre for part in told.segments]
    status = {name: row["status"] for name, row in rows.items() if row["genre"] is None}
    assert status == {"broken.mp3": "unreadable", "empty.flac": "unreadable", "nan.wav": "invalid",
                      "short.wav": "too short", "silent.wav": "silent"}  # fmt: skip
    assert all(name in row["error"] for name, row in rows.items() if row["error"])
    assert summary.failures == {"unreadable": 2, "invalid": 1, "too short": 1, "silent": 1}
    assert sum(summary.genres.values()) == 5


def test_formats_hold_the_same(songs, tmp_path):
    for ending in ("jsonl", "csv", "parquet"):
        run([str(songs)], tmp_path / f"genres.{ending}", Options(workers=2, timeline=True))
    lines = read(tmp_path / "genres.jsonl")
    table = pyarrow.parquet.read_table(tmp_path / "genres.parquet").to_pylist()
    with (tmp_path / "genres.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(lines) == len(table) == len(cells) == 10
    for line, row, cell in zip(lines, table, cells, strict=True):
        assert row["modified"].isoformat() == line["modified"] == cell["modified"]
        for name in set(line) - {"modified", "segments"}:
            assert row[name] == line[name]
            assert cell[name] == ("" if line[name] is None else str(line[name]))
        assert row["segments"] == line["segments"]
        assert (json.loads(cell["segments"]) if cell["segments"] else None) == line["segments"]


def test_command_line(songs, tmp_path):
    out, report = tmp_path / "genres.parquet", tmp_path / "library.html"
    command = [sys.executable, "-m", "musicclass", "library", str(songs), "--out", str(out), "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, "some files failed"
    assert "unreadable" in done.stdout and "20.0%" in done.stdout
    assert f"{out} written" in done.stderr and f"{report} written" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert "10 of 10 files are done already" in again.stderr
    for extra, message in ((["--out", "x.txt"], ".parquet"), (["--report", "x.txt"], ".html")):
        wrong = subprocess.run([*command, *extra], capture_output=True, text=True)
        assert wrong.returncode == 2 and message in wrong.stderr
    (tmp_path / "nothing").mkdir()
    empty = subprocess.run([*command[:4], str(tmp_path / "nothing"), "-o", str(out)], capture_output=True, text=True)
    assert empty.returncode == 0 and "no audio files in" in empty.stderr
    missing = subprocess.run([*command[:4], str(tmp_path / "no"), "-o", str(out)], capture_output=True, text=True)
    assert missing.returncode == 2 and "no such file or folder" in missing.stderr


# Going on


def test_only_new_and_changed_files_are_heard_again(folder, tmp_path, task):
    out = tmp_path / "genres.jsonl"
    run([str(folder)], out, TWO, make_task=task)
    first = out.read_bytes()
    assert len(heard(tmp_path)) == 40
    run([str(folder)], out, TWO, make_task=task)
    assert len(heard(tmp_path)) == 40 and out.read_bytes() == first
    (folder / "song 03.mp3").write_text("changed")
    (folder / "new.mp3").touch()
    (folder / "song 05.mp3").unlink()
    run([str(folder)], out, TWO, make_task=task)
    assert sorted(heard(tmp_path)[40:]) == ["new", "song 03"]
    assert len(read(out)) == 40
    run([str(folder)], out, Options(workers=2, min_confidence=0.5), make_task=task)
    assert len(heard(tmp_path)) == 82, "other settings, other answers"


def test_failed_files_wait_for_retry(folder, tmp_path, task):
    (folder / "raise.mp3").touch()
    out = tmp_path / "genres.jsonl"
    for options, count in ((TWO, 41), (TWO, 41), (Options(workers=2, retry=True), 42)):
        assert run([str(folder)], out, options, make_task=task).failures == {"crashed": 1}
        assert len(heard(tmp_path)) == count


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_as_if_never_interrupted(folder, tmp_path, task, sign):
    whole, broken = tmp_path / "whole" / "genres.parquet", tmp_path / "broken" / "genres.parquet"
    run([str(folder)], whole, TWO, make_task=hostile.make_task)
    command = [sys.executable, "-m", "tests.hostile", str(folder), str(broken), str(tmp_path / "heard.log"), "0.05"]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while len(heard(tmp_path)) < 10:
        time.sleep(0.01)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, sign)
    assert child.wait(20) == (-sign if sign == signal.SIGKILL else 130)
    assert not psutil.wait_procs(workers, timeout=20)[1], "workers end with their parent"
    assert not broken.exists()
    lost = set(heard(tmp_path))
    before = len(heard(tmp_path))
    run([str(folder)], broken, TWO, make_task=task)
    twice = lost & set(heard(tmp_path)[before:])
    assert len(twice) <= 2, "at most the files in flight"
    assert broken.read_bytes() == whole.read_bytes()


def test_two_runs_on_one_output(folder, tmp_path):
    out = tmp_path / "genres.jsonl"
    with Journal(tmp_path / "genres.jsonl.journal", ("x", "y")), pytest.raises(LibraryError, match="another run"):
        run([str(folder)], out, TWO, make_task=hostile.make_task)
    assert not out.exists()
    run([str(folder)], out, TWO, make_task=hostile.make_task)
    assert len(read(out)) == 40


def test_a_full_disk_loses_nothing_that_is_done(folder, tmp_path, task, monkeypatch):
    out, see = tmp_path / "genres.jsonl", Journal.see

    def crowded(self, files):
        see(self, files)
        (pages,) = self._db.execute("pragma page_count").fetchone()
        self._db.execute(f"pragma max_page_count = {pages + 1}")

    long = Options(workers=2, timeline=True)
    monkeypatch.setattr(Journal, "see", crowded)
    with pytest.raises(OSError, match="make room"):
        run([str(folder)], out, long, make_task=task)
    monkeypatch.undo()
    done = len(heard(tmp_path))
    assert 0 < done < 40 and not out.exists()
    run([str(folder)], out, long, make_task=task)
    assert len(read(out)) == 40 and len(heard(tmp_path)) <= 40 + 2


def test_files_of_any_time(folder, tmp_path):
    for name, second in (("past.mp3", -(10**9)), ("future.mp3", 2**34)):
        (folder / name).touch()
        try:
            os.utime(folder / name, (second, second))
        except (OSError, OverflowError):
            pytest.skip("this file system has no such times")
    assert run([str(folder)], tmp_path / "genres.jsonl", TWO, make_task=hostile.make_task).files == 42
    assert {row["status"] for row in read(tmp_path / "genres.jsonl")} == {"ok"}


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "genres.jsonl.journal").mkdir()
    with pytest.raises(OSError, match="choose another place"):
        run([str(folder)], tmp_path / "genres.jsonl", TWO, make_task=hostile.make_task)


def test_a_journal_that_is_none(folder, tmp_path):
    (tmp_path / "genres.jsonl.journal").write_text("my diary, by no means to be overwritten" * 200)
    with pytest.raises(LibraryError, match="not a journal"):
        run([str(folder)], tmp_path / "genres.jsonl", TWO, make_task=hostile.make_task)
    assert "diary" in (tmp_path / "genres.jsonl.journal").read_text()


# Isolation


def test_a_pool_that_was_idle_is_no_more_patient(tmp_path):
    with Pool(hostile.make_task, 1, 1, 1e9) as pool:
        [(_, fine)] = pool.map([str(tmp_path / "fine.mp3")])
        assert fine["genre"] == "jazz"
        time.sleep(4)
        begun = time.monotonic()
        [(_, hanging)] = pool.map([str(tmp_path / "hang.mp3")])
        assert hanging.status == "timed out" and time.monotonic() - begun < 3


def test_what_befalls_a_worker_befalls_no_other_file(folder, tmp_path):
    for name in ("crash", "crash2", "exit", "hang", "raise", "swell"):
        (folder / f"{name}.mp3").touch()
    options = Options(workers=2, timeout=2, max_memory=4e8)
    begun = time.monotonic()
    summary = run([str(folder)], tmp_path / "genres.jsonl", options, make_task=hostile.make_task)
    assert time.monotonic() - begun < 60
    status = {Path(row["path"]).stem: row["status"] for row in read(tmp_path / "genres.jsonl")}
    assert status.pop("hang") == "timed out" and status.pop("swell") == "out of memory"
    assert [status.pop(name) for name in ("crash", "crash2", "exit", "raise")] == ["crashed"] * 4
    assert set(status.values()) == {"ok"} and len(status) == 40
    assert summary.failures == {"crashed": 4, "timed out": 1, "out of memory": 1}
    errors = {Path(row["path"]).stem: row["error"] for row in read(tmp_path / "genres.jsonl")}
    assert "SIGSEGV" in errors["crash"] and "status 3" in errors["exit"] and "--timeout" in errors["hang"]


def test_workers_that_cannot_start_are_no_endless_loop():
    for make, message in ((hostile.make_nothing, "no such model here"), (hostile.make_dead, "exit status 7")):
        with Pool(make, 2, 60, 1e9) as pool, pytest.raises(LibraryError, match=message):
            list(pool.map(["a"]))


def test_a_worker_that_is_too_large_before_its_first_item():
    with Pool(hostile.make_task, 2, 60, 1e6) as pool, pytest.raises(LibraryError, match="--max-memory"):
        list(pool.map(["a"]))


def test_a_slow_consumer_times_nobody_out():
    with Pool(functools.partial(hostile.make_task, "", 0.2), 3, 1, 1e9) as pool:
        for _, value in pool.map([f"song {i}" for i in range(9)]):
            assert not isinstance(value, Failure)
            time.sleep(1.2)


def test_pool_of_nothing_starts_nothing():
    with Pool(hostile.make_dead, 2, 60, 1e9) as pool:
        assert list(pool.map([])) == []


def test_workers_have_one_thread_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Pool(functools.partial(eval, "lambda name: __import__('os').environ[name]"), 1, 60, 1e9) as pool:
        assert dict(pool.map(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])) == {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
    assert "OMP_NUM_THREADS" not in os.environ


# Names


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are Unicode")
def test_names_of_any_kind(tmp_path):
    place = tmp_path / "music"
    (place / "<").mkdir(parents=True)
    names = [b"-o.mp3", b"new\nline.mp3", "🎵 né.mp3".encode(), b"bad\xff.mp3", b"*[a].mp3", b"</script>.mp3"]
    names += [b"\"',;.mp3", b" .mp3"]
    for name in (*names, b".hidden.mp3", b"notes.txt"):
        (place / os.fsdecode(name)).touch()
    (place / "in").mkdir()
    (place / "in" / "round").symlink_to(place)
    (place / "in" / "self").symlink_to("self")
    (place / "gone.mp3").symlink_to("nowhere.mp3")
    summary = run([str(place)], tmp_path / "g.jsonl", TWO, make_task=hostile.make_task)
    assert summary.files == len(names) + 1
    for ending in ("csv", "parquet"):
        run([str(place)], tmp_path / f"g.{ending}", TWO, report=tmp_path / "r.html", make_task=hostile.make_task)
    paths = [row["path"] for row in read(tmp_path / "g.jsonl")]
    assert pyarrow.parquet.read_table(tmp_path / "g.parquet")["path"].to_pylist() == paths
    with (tmp_path / "g.csv").open(encoding="utf-8", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == paths
    assert str(place / r"bad\udcff.mp3") in paths and str(place / "new\nline.mp3") in paths
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2, "a name ends no script"


def test_a_link_to_a_folder_elsewhere_is_followed_once(tmp_path, wav):
    wav(make_noise(1), name="elsewhere/a.wav")
    (tmp_path / "music").mkdir()
    for name in ("one", "two"):
        (tmp_path / "music" / name).symlink_to(tmp_path / "elsewhere")
    assert list(walk.below(str(tmp_path / "music"))) == [str(tmp_path / "music" / "one" / "a.wav")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_a_folder_that_cannot_be_read_is_a_row(tmp_path, folder):
    (folder / "locked").mkdir(mode=0)
    run([str(folder)], tmp_path / "g.jsonl", TWO)
    row = next(row for row in read(tmp_path / "g.jsonl") if row["path"].endswith("locked"))
    assert row["status"] == "unreadable" and "permission" in row["error"]


# Size


@pytest.mark.skipif(sys.platform != "linux", reason="reads the most memory that there was from /proc")
def test_a_million_paths_take_little_memory(tmp_path):
    """In a process of its own, with nothing heard: walking, journal and table alone."""
    program = """
import sys
from pathlib import Path
from musicclass.library import run as running
class Pool:
    def __init__(self, *_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def map(self, paths):
        row = {"duration": 60.0, "genre": "jazz", "best_guess": "jazz", "confidence": 0.5, "familiarity": 1.0}
        return ((path, row) for path in paths)
running.Pool = Pool
name = "/music/artist {:03}/a song with a long name {}.mp3"
running.look_at = lambda names: ((name.format(i // 1000, i), i, i) for i in range(1_000_000))
out = Path(sys.argv[1])
summary = running.run([sys.argv[1]], out / "g.parquet", running.Options(), report=out / "r.html")
assert summary.files == summary.done_now == 1_000_000
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500, "megabytes"
    assert pyarrow.parquet.ParquetFile(tmp_path / "g.parquet").metadata.num_rows == 1_000_000
    shutil.rmtree(tmp_path)


def test_report_of_nothing():
    text = page([], ["jazz"], "model")
    assert json.loads(text.split('id="data">')[1].split("</script>")[0])["files"] == 0
