"""A library: one row for each file, whatever the files are like and however the run ends."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mutagen
import numpy as np
import psutil
import pyarrow.parquet
import pytest
import soundfile

from musicclass import LibraryError
from musicclass.datasets.cache import cache_folder
from musicclass.library import table as table_module
from musicclass.library.report import html_report
from musicclass.library.results import ResultStore
from musicclass.library.run import ScanOptions, run
from musicclass.library.table import columns, prediction_row, table_row, write
from musicclass.prediction import Prediction
from tests import faulty_tasks
from tests.conftest import ROOT, make_music, make_noise
from tests.serving import wait_for

OPTIONS = ScanOptions(workers=2)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Real audio


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    music = make_music(12)
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(folder / f"song.{suffix}", music, 22_050)
    soundfile.write(folder / "silent.wav", np.zeros(22_050 * 2), 22_050)
    soundfile.write(folder / "short.wav", make_noise(0.5), 22_050)
    soundfile.write(folder / "nan.wav", np.full(44_100, np.nan, np.float32), 22_050, subtype="FLOAT")
    (folder / "broken.mp3").write_bytes(b"not music at all" * 100)
    (folder / "empty.flac").touch()
    return folder


@pytest.fixture(scope="module")
def table(songs, tmp_path_factory) -> Path:
    """The table of the songs, and their results."""
    out = tmp_path_factory.mktemp("table") / "genres.jsonl"
    done: list[int] = []
    options = ScanOptions(workers=2, segments=True)
    summary = run([str(songs)], out, options, on_progress=lambda state: done.append(state.done))
    assert summary.failures == {"unreadable": 2, "invalid": 1, "too_short": 1, "silent": 1}
    assert summary.genres.total() == 5 and summary.audio_seconds == pytest.approx(60, abs=1)
    assert (summary.processed, summary.failed, done) == (10, 5, [*range(11), 10])
    return out


def test_rows_equal_predictions_of_the_classifier(songs, table, classifier):
    rows = {Path(row["file"]).name: row for row in read(table)}
    assert len(rows) == 10 and list(rows) == sorted(rows)
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        row = rows[f"song.{suffix}"]
        predicted = classifier.predict(songs / f"song.{suffix}").to_dict()
        probabilities = predicted.pop("probabilities")
        assert row["status"] == "ok" and row["error"] is None
        assert {name: row[name] for name in predicted} == predicted | {
            "segments": list(predicted["segments"]),
            "tags": ", ".join(predicted["tags"]),
        }
        assert {genre: row[f"prob_{genre}"] for genre in probabilities} == probabilities
    statuses = {name: row["status"] for name, row in rows.items() if row["genre"] is None}
    assert statuses == {"broken.mp3": "unreadable", "empty.flac": "unreadable", "nan.wav": "invalid",
                        "short.wav": "too_short", "silent.wav": "silent"}  # fmt: skip
    assert all(name in row["error"] for name, row in rows.items() if row["error"])


def test_formats_hold_the_same_rows(songs, table, tmp_path):
    for suffix in ("csv", "parquet"):
        shutil.copy(f"{table}.journal", tmp_path / f"genres.{suffix}.journal")
        assert not run([str(songs)], tmp_path / f"genres.{suffix}", ScanOptions(segments=True)).processed
    with (tmp_path / "genres.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    rows = pyarrow.parquet.read_table(tmp_path / "genres.parquet").to_pylist()
    for line, row, cell in zip(read(table), rows, cells, strict=True):
        assert list(line) == list(row) == list(cell)
        assert row["modified"].isoformat() == line["modified"] == cell["modified"]
        for name in set(line) - {"modified", "segments"}:
            assert row[name] == line[name]
            assert cell[name] == ("" if line[name] is None else str(line[name]))
        assert row["segments"] == line["segments"]
        assert (json.loads(cell["segments"]) if cell["segments"] else None) == line["segments"]


def test_command_line(songs, tmp_path, run):
    out, report, empty = tmp_path / "genres.parquet", tmp_path / "library.html", tmp_path / "empty"
    empty.mkdir()
    status, printed, err = run("library", songs, "--out", out, "--report", report)
    assert status == 1, "some files failed"
    assert "unreadable" in printed and "20.0%" in printed
    assert f"{out} written" in err and f"{report} written" in err
    assert f"of 10 files failed; column `error` of {out} has the reasons" in err
    for arguments, code, message in (
        ([songs, "--out", out], 1, "10 of 10 files already done"),
        ([songs, "--out", "x.txt"], 2, ".parquet"),
        ([songs, "--out", out, "--tolerate-failed"], 0, "broken.mp3: "),
        ([songs, "--out", out, "--report", "x.txt"], 2, ".html"),
        ([tmp_path / "missing", "--out", out], 2, "no such file or folder"),
        ([empty, "--out", out], 2, "check that their disk is connected"),
        ([empty, "--out", out, "--allow-missing"], 0, "no audio files in"),
    ):
        status, _, err = run("library", *arguments)
        assert status == code and message in err


# Resuming, with tasks that make up their rows


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Empty files, whose rows the workers make up."""
    task = functools.partial(faulty_tasks.make_task, str(tmp_path / "processed.log"), 0.0)
    monkeypatch.setattr("musicclass.library.run.make_predict_task", task)
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(40):
        (folder / f"song {i:02}.mp3").touch()
    return folder


def processed(tmp_path: Path) -> list[str]:
    """The names of files in the order in which workers started them."""
    log = tmp_path / "processed.log"
    return log.read_text().splitlines() if log.exists() else []


def test_only_new_and_changed_files_are_processed(folder, tmp_path):
    out = tmp_path / "genres.jsonl"
    run([str(folder)], out, OPTIONS)
    first = out.read_bytes()
    assert len(processed(tmp_path)) == 40
    run([str(folder)], out, OPTIONS)
    assert len(processed(tmp_path)) == 40 and out.read_bytes() == first
    (folder / "song 03.mp3").write_text("changed")
    (folder / "new.mp3").touch()
    (folder / "song 05.mp3").unlink()
    run([str(folder)], out, OPTIONS)
    assert sorted(processed(tmp_path)[40:]) == ["new", "song 03"] and len(read(out)) == 40
    run([str(folder)], out, ScanOptions(workers=2, min_confidence=0.5))
    assert len(processed(tmp_path)) == 42, "it applies to stored scores"
    assert all(row["genre"] == ("jazz" if row["confidence"] >= 0.5 else "unknown") for row in read(out))
    for options in (ScanOptions(workers=2, segments=True), OPTIONS):
        run([str(folder)], out, options)
        assert len(processed(tmp_path)) == 82, "segments are stored from then on"


def test_no_second_analysis_of_the_same_audio(tmp_path, songs, table, monkeypatch):
    music, out = tmp_path / "music", tmp_path / "genres.jsonl"
    shutil.copytree(songs, music)
    shutil.copy(f"{table}.journal", f"{out}.journal")
    file = mutagen.File(music / "song.flac")
    file.update(genre="Jazz", title="=1+1", artist="A\nB", date="1999-12-31")
    file.save()
    shutil.copy(music / "song.mp3", music / "copy.mp3")
    summary = run([str(music)], out, OPTIONS)
    assert (summary.files, summary.processed, summary.reused) == (11, 11, 6), "a moved folder, a retag and a copy"
    before, after = ({Path(row["file"]).name: row for row in read(path)} for path in (table, out))
    tags = [after["song.flac"][name] for name in ("title", "artist", "year", "genre_tag")]
    assert tags == ["=1+1", "A B", 1999, "Jazz"] and after["song.wav"]["title"] is None
    table_module.write(tmp_path / "t.csv", after.values(), list(after["song.flac"]))
    assert ",'=1+1,A B,1999,Jazz," in (tmp_path / "t.csv").read_text()
    for name in ("song.flac", "song.wav", "copy.mp3"):
        scores = {key: value for key, value in after[name].items() if key.startswith("prob_")}
        assert scores.items() <= before[name.replace("copy", "song")].items()
    os.utime(music / "song.wav", (1, 1))
    summary = run([str(music)], out, OPTIONS)
    assert (summary.processed, summary.reused) == (1, 1)


def test_an_empty_mount_point_does_not_empty_the_table(folder, tmp_path):
    out = tmp_path / "genres.jsonl"
    run([str(folder)], out, OPTIONS)
    first = out.read_bytes()
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir()
    for _ in range(2):
        with pytest.raises(LibraryError, match="has 40 files, of which at most 0 are left"):
            run([str(folder)], out, OPTIONS)
    assert out.read_bytes() == first
    assert not run([str(folder)], out, ScanOptions(allow_missing=True)).files
    assert not run([str(folder)], out, OPTIONS).files


def test_failed_files_are_processed_again_only_on_request(folder, tmp_path):
    (folder / "raise.mp3").touch()
    out = tmp_path / "genres.jsonl"
    for options, count in ((OPTIONS, 41), (OPTIONS, 41), (ScanOptions(workers=2, retry_failed=True), 42)):
        assert run([str(folder)], out, options).failures == {"crashed": 1}
        assert len(processed(tmp_path)) == count


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_run_resumes_to_the_same_table(folder, tmp_path, sent):
    complete, interrupted = tmp_path / "complete" / "genres.parquet", tmp_path / "interrupted" / "genres.parquet"
    run([str(folder)], complete, OPTIONS)
    log = tmp_path / "processed.log"
    log.unlink()
    command = [sys.executable, "-m", "tests.faulty_tasks", str(folder), str(interrupted), str(log), "0.05"]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while len(processed(tmp_path)) < 10:
        time.sleep(0.01)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, sent)
    assert child.wait(20) == (-sent if sent == signal.SIGKILL else 130)
    assert not psutil.wait_procs(workers, timeout=20)[1], "workers end with their parent"
    assert not interrupted.exists()
    before = processed(tmp_path)
    run([str(folder)], interrupted, OPTIONS)
    repeated = set(before) & set(processed(tmp_path)[len(before) :])
    assert len(repeated) <= 2, "at most the files in progress"
    assert interrupted.read_bytes() == complete.read_bytes()


@pytest.mark.slow
def test_watched_folders(tmp_path, songs):
    pytest.importorskip("watchfiles")
    music, out = tmp_path / "music", tmp_path / "music/genres.jsonl"
    music.mkdir()
    shutil.copy(songs / "song.wav", music)
    command = [
        sys.executable,
        "-m",
        "musicclass",
        "library",
        str(music),
        "--out",
        str(out),
        "--model",
        "gtzan",
        "--watch",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def names() -> list[str]:
        return [Path(row["file"]).name for row in read(out)] if out.exists() else []

    wait_for(lambda: names() == ["song.wav"])
    data = (songs / "song.mp3").read_bytes()
    with (music / "new.mp3").open("wb") as file:  # slowly
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(1.5)
    wait_for(lambda: names() == ["new.mp3", "song.wav"])
    assert {row["status"] for row in read(out)} == {"ok"}
    (music / "song.wav").unlink()
    wait_for(lambda: names() == ["new.mp3"])
    written = out.stat().st_mtime_ns
    (music / "cover.jpg").touch()
    time.sleep(3)
    assert out.stat().st_mtime_ns == written, "only music counts"
    process.terminate()  # where tests run in the background, SIGINT is ignored
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and "Traceback" not in err and "1 file processed, 0 failed" in err


def test_second_run_on_the_same_table_is_refused(folder, tmp_path):
    out = tmp_path / "genres.jsonl"
    with ResultStore(tmp_path / "genres.jsonl.journal", ("x", "y")), pytest.raises(LibraryError, match="another run"):
        run([str(folder)], out, OPTIONS)
    assert not out.exists()


def test_full_disk_keeps_results(folder, tmp_path, monkeypatch):
    out, upsert_files = tmp_path / "genres.jsonl", ResultStore.upsert_files

    def fill_disk(self, files):
        upsert_files(self, files)
        (pages,) = self._db.execute("pragma page_count").fetchone()
        self._db.execute(f"pragma max_page_count = {pages}")

    monkeypatch.setattr(ResultStore, "upsert_files", fill_disk)
    with pytest.raises(OSError, match="free some space"):
        run([str(folder)], out, OPTIONS)
    monkeypatch.undo()
    count = len(processed(tmp_path))
    assert 0 < count < 40 and not out.exists()
    run([str(folder)], out, OPTIONS)
    assert len(read(out)) == 40 and len(processed(tmp_path)) <= 40 + 2


def test_places_where_no_results_can_be_stored(folder, tmp_path):
    journal = tmp_path / "genres.jsonl.journal"
    journal.mkdir()
    with pytest.raises(OSError, match="choose another place"):
        run([str(folder)], tmp_path / "genres.jsonl", OPTIONS)
    journal.rmdir()
    journal.write_text("a diary" * 1000)
    with pytest.raises(LibraryError, match="not a store of results"):
        run([str(folder)], tmp_path / "genres.jsonl", OPTIONS)
    assert journal.read_text().startswith("a diary")
    journal.unlink()
    with contextlib.closing(sqlite3.connect(journal)) as other_version:
        other_version.execute("create table files (file blob primary key)")
    with pytest.raises(LibraryError, match=r"no such column.*delete it"):
        run([str(folder)], tmp_path / "genres.jsonl", OPTIONS)


# Files and names


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_file_names_of_any_kind(tmp_path, folder):
    shutil.rmtree(folder)
    (folder / "<").mkdir(parents=True)
    names = [b"-o.mp3", b"new\nline.mp3", "🎵 né.mp3".encode(), b"bad\xff.mp3", b"*[a].mp3", b"</script>.mp3"]
    names += [b"\"',;.mp3", b" .mp3", b"$data {{x}}.mp3"]
    for name in (*names, b".hidden.mp3", b"notes.txt"):
        (folder / os.fsdecode(name)).touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "sub" / "self").symlink_to("self")
    (folder / "missing.mp3").symlink_to("nowhere.mp3")
    for name, second in (("past.mp3", -(10**9)), ("future.mp3", 2**34)):
        (folder / name).touch()
        os.utime(folder / name, (second, second))
    tables = {suffix: tmp_path / f"g.{suffix}" for suffix in ("jsonl", "csv", "parquet")}
    report = tmp_path / "r.html"
    for out in tables.values():
        summary = run([str(folder)], out, OPTIONS, report)
        assert summary.files == len(names) + 3
    files = [row["file"] for row in read(tables["jsonl"])]
    assert pyarrow.parquet.read_table(tables["parquet"])["file"].to_pylist() == files
    with tables["csv"].open(encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == files
    assert str(folder / r"bad\udcff.mp3") in files and str(folder / "new\nline.mp3") in files
    text = report.read_text(encoding="utf-8")
    assert text.count("</script>") == 2, "a file name doesn't end the script element"
    assert {row[0] for row in report_data(text)["rows"]} == set(files)


def report_data(page: str) -> dict:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_csv_is_read_by_the_sniffer_of_duckdb(tmp_path):
    duckdb, names = pytest.importorskip("duckdb"), columns(["jazz"], True, False)
    ok = {"genre": "jazz", "confidence": 0.5, "prob_jazz": 1.0, "seconds_lost": 0.0, "segments": [{"genre": "jazz"}]}
    files = [f"/music/{name}.mp3" for name in ("a", 'b, "live"', "c;\t|", "d\ne", "=f", "g'h")]
    rows = [{"modified": 0, "file": file, **(ok if file < "/music/c" else {"error": file})} for file in files]
    write(tmp_path / "genres.csv", (table_row(row, names) for row in rows), names)
    read = duckdb.sql(f"select file, seconds_lost, error from read_csv('{tmp_path}/genres.csv')")
    assert read.fetchall() == [(row["file"], row.get("seconds_lost"), row.get("error")) for row in rows]
    assert read.types[1] == "DOUBLE"


def test_report_has_all_files():
    row = {"genre": "jazz", "confidence": 0.5, "duration": 60.0, "status": "ok"}
    rows = ({"file": f"/music/{i}.mp3", **row} for i in range(30_000))
    text = html_report(rows, Counter(jazz=30_000), Counter(), ["jazz"], "model")
    assert len(report_data(text)["rows"]) == 30_000 and len(text) < 30_000 * 60


def test_report_of_an_empty_library():
    text = html_report([], Counter(), Counter(), ["jazz"], "<model>")
    assert report_data(text)["rows"] == [] and "0 files, 0.0 hours of music; model &lt;model&gt;" in text


def test_report_shows_shares_and_confidence_without_javascript():
    row = {"file": "<i>.mp3", "genre": "jazz", "confidence": 0.97, "duration": 1800.0, "status": "ok"}
    failed = {"file": "c.mp3", "genre": None, "confidence": None, "duration": None, "status": "not <audio>"}
    text = html_report([row] * 3 + [failed], Counter(jazz=3), Counter({"not <audio>": 1}), ["jazz"], "model")
    assert "4 files, 1.5 hours of music" in text and "3 · 75.0%" in text and "1 · 25.0%" in text
    assert "not &lt;audio&gt;" in text and 'title="3 files from 95% to 100%"' in text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every folder")
def test_unreadable_folder_is_a_row(tmp_path, folder):
    (folder / "locked").mkdir(mode=0)
    run([str(folder)], tmp_path / "g.jsonl", OPTIONS)
    row = next(row for row in read(tmp_path / "g.jsonl") if row["file"].endswith("locked"))
    assert row["status"] == "unreadable" and "permission" in row["error"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """Scan, results, table and report, without audio, in a process of its own."""
    program = """
import sys
from pathlib import Path
from musicclass.library import map as song_map, run as runner
song_map.MAX_LAYOUT, song_map.TRIES = 1_000, 1  # all songs are at one place, which would take half a minute
row = {"duration": 60.0, "genre": "jazz", "top_genre": "jazz", "confidence": 0.5, "familiarity": 1.0, "status": "ok"}
row |= {"prob_jazz": 0.5, "prob_pop": 0.5}
runner.predict_files = lambda files, *_: ((file, row) for file in files)
name = "/music/artist {:03}/a song with a long name {}.mp3"
runner.scan = lambda *_: ((name.format(i // 1000, i), i, i) for i in range(100_000))
out = Path(sys.argv[1])
summary = runner.run([sys.argv[1]], out / "g.parquet", runner.ScanOptions(), out / "r.html")
assert summary.files == summary.processed == 100_000
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300, "megabytes"
    assert pyarrow.parquet.ParquetFile(tmp_path / "g.parquet").metadata.num_rows == 100_000
    shutil.rmtree(tmp_path)


def test_paths_in_tables_do_not_depend_on_the_locale(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("latin-1"))
    row = {"file": "/music/né.mp3".encode().decode("latin-1"), "modified": -1}
    assert table_row(row, ["file"])["file"] == "/music/né.mp3"


def test_tables_have_six_significant_digits():
    scores = {"blues": 1.8854551871794221e-305, "jazz": 0.123456789}
    prediction = Prediction("a", "jazz", "jazz", 0.123456789, 1.0, scores, 3.0, (), "gtzan", {})
    row = prediction_row(prediction, False)
    assert (row["prob_blues"], row["prob_jazz"], row["confidence"]) == (1.88546e-305, 0.123457, 0.123457)


def test_a_user_without_a_home_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", staticmethod(lambda: (_ for _ in ()).throw(RuntimeError("no home"))))
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    for name in ("MUSICCLASS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(UserWarning, match="set MUSICCLASS_CACHE"):
        assert cache_folder() is None
