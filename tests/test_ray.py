"""The library on Ray and in remote stores: the very rows of the local run, whoever dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from musicclass.config import FeatureConfig
from musicclass.errors import DecodeError, LibraryError
from musicclass.library import store
from musicclass.library.journal import Journal
from musicclass.library.run import Options, run
from tests.conftest import make_music, make_noise

ray = pytest.importorskip("ray", reason='needs Ray: pip install -e ".[dev]"')

LOCAL, ON_RAY = Options(workers=2), Options(workers=2, ray="local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Songs that can be heard, and files that can't."""
    place, music = tmp_path_factory.mktemp("music"), make_music(20)
    for i in range(48):
        soundfile.write(place / f"song {i:02}.flac", np.roll(music, 1000 * i), 22_050)
    soundfile.write(place / "silent.wav", np.zeros(44_100), 22_050)
    soundfile.write(place / "short.wav", make_noise(0.5), 22_050)
    (place / "broken.mp3").write_bytes(b"not music at all" * 100)
    if os.name == "posix":
        shutil.copy(place / "song 00.flac", os.fsdecode(os.fsencode(place) + b"/bad\xff.flac"))
    return place


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("local") / "genres.parquet"
    run([str(folder)], out, LOCAL)
    return out


@pytest.fixture(scope="module")
def keys():
    """What a store asks for; Ray's workers have the environment that Ray was started in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "x")
        yield


@pytest.fixture(scope="module")
def cluster(keys):
    """A local Ray with several worker processes."""
    ray.init(num_cpus=3, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def ray_workers() -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if "ray::" in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_same_rows_though_a_worker_is_killed(folder, local, tmp_path, cluster):
    out, killed = tmp_path / "genres.parquet", []

    def kill_one() -> None:
        journal = tmp_path / "genres.parquet.journal"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            busy = [p for p in ray_workers() if "map" in " ".join(_command(p)).lower()]
            if journal.exists() and busy:
                time.sleep(0.5)
                victim = next((p for p in busy if p.is_running()), None)
                if victim:
                    os.kill(victim.pid, signal.SIGKILL)
                    killed.append(victim.pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = run([str(folder)], out, ON_RAY)
    killer.join()
    assert killed, "there was a worker to kill"
    assert out.read_bytes() == local.read_bytes()
    assert summary.done_now == summary.files == 51 + (os.name == "posix")
    assert run([str(folder)], out, ON_RAY).done_now == 0, "it goes on where it was"


def test_a_decoder_that_crashes_on_ray_is_a_row(tmp_path, cluster, monkeypatch):
    from musicclass.library import on_ray
    from tests import hostile

    monkeypatch.setattr(on_ray, "_make_decoder", hostile.make_decoder)
    limits = (FeatureConfig(), False, 2, 4e8)
    try:
        for name, status in (("crash", "crashed"), ("hang", "timed out"), ("swell", "out of memory")):
            assert on_ray._decode(*limits, {"path": name.encode()})["status"] == status
    finally:
        on_ray._decoder(*limits).__exit__()
        on_ray._decoder.cache_clear()


def test_a_ray_worker_serves_every_run_with_its_own_settings(folder):
    from musicclass.library import on_ray

    song, heard = os.fsencode(folder / "song 00.flac"), []
    for features in (FeatureConfig(), FeatureConfig(n_mfcc=FeatureConfig().n_mfcc // 2)):
        limits = (features, False, 60, 1e9)
        heard.append(len(on_ray._decode(*limits, {"path": song})["windows"]))
        on_ray._decoder(*limits).__exit__()
    on_ray._decoder.cache_clear()
    assert heard[0] == 2 * heard[1] > 0


@pytest.fixture(scope="module")
def bucket(folder, keys):
    """The folder's files in an S3-compatible store on this machine."""
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
    yield f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    server.stop()


def address(bucket: str, place: str) -> str:
    return f"s3://{place}{bucket}"


def test_a_bucket_is_as_good_as_a_folder(folder, local, bucket, tmp_path):
    import pyarrow.parquet

    here = address(bucket, "music/all")
    found = list(store.look_at(here))
    assert [path for path, _, _ in found] == [
        *sorted(path for path, _, _ in found if "deep" not in path),
        address(bucket, "music/all/deep/er/song.flac"),
    ]
    assert all(size > 0 and at > 0 for _, size, at in found)
    run([here], tmp_path / "genres.parquet", LOCAL)
    rows = pyarrow.parquet.read_table(tmp_path / "genres.parquet").to_pylist()
    wanted = {Path(row["path"]).name: row for row in pyarrow.parquet.read_table(local).to_pylist()}
    assert len(rows) == len(found) == 52
    for row in rows:
        name = row["path"].partition("?")[0].rpartition("/")[2]
        same = wanted["song 01.flac" if name == "song.flac" else name]
        for column in set(row) - {"path", "modified", "error"}:
            assert row[column] == same[column], (name, column)
        assert bool(row["error"]) == bool(same["error"])


def test_a_bucket_on_ray(bucket, tmp_path, cluster):
    here = address(bucket, "music/all/deep")
    run([here], tmp_path / "a.jsonl", LOCAL)
    run([here], tmp_path / "b.jsonl", ON_RAY)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert '"status": "ok"' in (tmp_path / "a.jsonl").read_text()


def test_addresses_of_other_systems(folder, tmp_path):
    (tmp_path / "100% or more?").mkdir()
    shutil.copy(folder / "song 00.flac", tmp_path / "100% or more?" / "what? 50%.flac")
    ((address, size, _),) = store.look_at(tmp_path.as_uri())
    assert address == f"{tmp_path.as_uri()}/100%25 or more%3F/what%3F 50%25.flac"
    with store.open_file(address) as file:
        assert len(file.read()) == size and file.name == address
    assert store._split("hdfs://node:8020/a/b?x=1") == ("hdfs", "node:8020", "/a/b", "x=1")
    assert store._address("hdfs://node:8020/a?x=1", "/a/c") == "hdfs://node:8020/a/c?x=1"
    assert store._address("s3://music/a?x=1", "music/a/c") == "s3://music/a/c?x=1"


def test_addresses_that_lead_nowhere(bucket, tmp_path):
    for place in ("music/none", "nobucket/all"):
        with pytest.raises(LibraryError, match=place):
            list(store.look_at(address(bucket, place)))
    with pytest.raises(LibraryError, match="no such kind"):
        list(store.look_at("gopher://old/music"))
    with pytest.raises(DecodeError, match="can't be opened"):
        store.open_file(address(bucket, "music/all/none.mp3"))
    assert not store.is_remote("/a/folder") and store.is_remote("s3://music")


def test_one_object_is_an_address_too(bucket):
    one = address(bucket, "music/all/song 01.flac")
    assert [path for path, _, _ in store.look_at(one)] == [one]


def test_an_interrupted_run_on_ray_keeps_what_is_done(folder, tmp_path, cluster, monkeypatch):
    out, record, count = tmp_path / "genres.jsonl", Journal.record, 0

    def interrupted(self, *arguments, **more):
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt
        record(self, *arguments, **more)

    monkeypatch.setattr(Journal, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([str(folder)], out, ON_RAY)
    monkeypatch.undo()
    summary = run([str(folder)], out, ON_RAY)
    assert summary.done_now == summary.files - 19
