"""The library on Ray and in remote stores: the rows of a local run, though workers are lost."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import soundfile

from musicclass.config import FeatureConfig
from musicclass.errors import DecodeError, LibraryError
from musicclass.library import ray_backend, remote
from musicclass.library.results import ResultStore
from musicclass.library.run import ScanOptions, run
from tests import faulty_tasks
from tests.conftest import make_music, make_noise

SONGS = 16
LOCAL, ON_RAY = ScanOptions(workers=2), ScanOptions(workers=2, ray="local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Songs, and files without usable audio."""
    folder, music = tmp_path_factory.mktemp("music"), make_music(20)
    for i in range(SONGS):
        soundfile.write(folder / f"song {i:02}.flac", np.roll(music, 1000 * i), 22_050)
    soundfile.write(folder / "silent.wav", np.zeros(44_100), 22_050)
    soundfile.write(folder / "short.wav", make_noise(0.5), 22_050)
    (folder / "broken.mp3").write_bytes(b"not music at all" * 100)
    if os.name == "posix":
        shutil.copy(folder / "song 00.flac", os.fsdecode(os.fsencode(folder) + b"/bad\xff.flac"))
    return folder


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory) -> Path:
    """The table of a local run."""
    run([str(folder)], out := tmp_path_factory.mktemp("local") / "genres.parquet", LOCAL)
    return out


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason='needs Ray: pip install -e ".[dev]"')
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # Ray's workers inherit them
            patch.setenv(name, "x")
        ray.init(num_cpus=3, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def bucket(folder, cluster):
    """The folder's files in an S3-compatible store on this machine; makes addresses."""
    server = pytest.importorskip("moto.server", reason='needs moto: pip install -e ".[dev]"').ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="music")
    for path in sorted(folder.iterdir()):
        if path.name.isprintable():
            client.upload_file(str(path), "music", f"all/{path.name}")
    client.put_object(Bucket="music", Key="all/deep/er/song.flac", Body=(folder / "song 01.flac").read_bytes())
    client.put_object(Bucket="music", Key="all/notes.txt", Body=b"no music")
    yield lambda place: f"s3://{place}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    server.stop()


# Remote stores


def test_addresses_in_other_file_systems(tmp_path, wav):
    wav(make_noise(2), name="100% or more?/what? 50%.wav")
    top = tmp_path.as_uri()
    ((address, size, modified),) = remote.scan(top)
    assert address == f"{top}/100%25 or more%3F/what%3F 50%25.wav" and modified > 0
    with remote.open_file(address) as file:
        assert len(file.read()) == size and file.name == address
    run([top], tmp_path / "genres.jsonl", ScanOptions(workers=1))
    row = json.loads((tmp_path / "genres.jsonl").read_text())
    assert (row["status"], row["file"]) == ("ok", address)
    for base, path in (("hdfs://node:8020/a?x=1", "/a/c?"), ("s3://music/a?x=1", "music/a/c%")):
        assert remote.parse(remote.address_of(base, path))[1] == path
    assert remote.address_of("s3://music/a?x=1", "music/a/c%") == "s3://music/a/c%25?x=1"
    with pytest.raises(LibraryError, match="not a kind of address"):
        list(remote.scan("gopher://old/music"))
    assert not remote.is_remote("/a/folder") and remote.is_remote("s3://music")


@pytest.mark.slow
def test_bucket_gives_the_rows_of_a_folder(folder, local, bucket, tmp_path):
    top = bucket("music/all")
    listing = list(remote.scan(top))
    files = [address for address, _, _ in listing]
    assert files == [*sorted(file for file in files if "deep" not in file), bucket("music/all/deep/er/song.flac")]
    assert all(size > 0 and modified > 0 for _, size, modified in listing)
    run([top], tmp_path / "genres.parquet", LOCAL)
    rows = pyarrow.parquet.read_table(tmp_path / "genres.parquet").to_pylist()
    expected = {Path(row["file"]).name: row for row in pyarrow.parquet.read_table(local).to_pylist()}
    assert len(rows) == len(listing) == SONGS + 4
    for row in rows:
        name = row["file"].partition("?")[0].rpartition("/")[2]
        same = expected["song 01.flac" if name == "song.flac" else name]
        own = {"file", "modified", "error", "map_x", "map_y"}  # copies are beside each other in the map
        assert all(row[column] == same[column] for column in set(row) - own), name
        assert bool(row["error"]) == bool(same["error"])
    song = bucket("music/all/song 01.flac")
    assert [address for address, _, _ in remote.scan(song)] == [song]
    for place in ("music/none", "nobucket/all"):
        with pytest.raises(LibraryError, match=place):
            list(remote.scan(bucket(place)))
    with pytest.raises(DecodeError, match="can't be opened"):
        remote.open_file(bucket("music/all/none.mp3"))


# Ray


@pytest.mark.slow
def test_same_table_though_a_ray_worker_is_killed(folder, local, tmp_path, cluster):
    out, killed = tmp_path / "genres.parquet", []

    def kill_a_worker() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline"]):
                if "ray::Map" in " ".join(process.info["cmdline"] or ()):
                    time.sleep(0.5)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                        killed.append(process.pid)
                        return

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    summary = run([str(folder)], out, ON_RAY)
    killer.join()
    assert killed, "there was a worker to kill"
    assert out.read_bytes() == local.read_bytes()
    assert summary.processed == summary.files == SONGS + 3 + (os.name == "posix")
    assert run([str(folder)], out, ON_RAY).processed == 0


@pytest.mark.slow
def test_interrupted_run_on_ray_keeps_its_results(folder, tmp_path, cluster, monkeypatch):
    out, record, count = tmp_path / "genres.jsonl", ResultStore.record, 0

    def interrupt(self, *arguments):
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        record(self, *arguments)

    monkeypatch.setattr(ResultStore, "record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run([str(folder)], out, ON_RAY)
    monkeypatch.undo()
    summary = run([str(folder)], out, ON_RAY)
    assert summary.processed == summary.files - 9


@pytest.mark.slow
def test_bucket_on_ray(bucket, tmp_path, cluster):
    for name, options in (("local", LOCAL), ("ray", ON_RAY)):
        run([bucket("music/all/deep")], tmp_path / f"{name}.jsonl", options)
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "ray.jsonl").read_bytes()
    assert '"status": "ok"' in (tmp_path / "ray.jsonl").read_text()


@pytest.mark.slow
def test_failing_decoders_on_ray_are_rows_and_each_run_has_its_settings(folder, monkeypatch):
    song = {"file": os.fsencode(folder / "song 00.flac")}
    long, short = (
        ray_backend.extract(song, FeatureConfig(window_seconds=n), False, LOCAL).windows.shape[1] for n in (10, 5)
    )
    assert long == pytest.approx(2 * short, abs=2)
    monkeypatch.setattr(ray_backend, "_make_extract_task", functools.partial(faulty_tasks.make_task, "", 0.0))
    for name, status in (("crash", "crashed"), ("hang", "timeout"), ("swell", "out_of_memory")):
        limited = ScanOptions(timeout=2, max_memory=4e8)
        assert ray_backend.extract({"file": name.encode()}, FeatureConfig(), False, limited).status == status
