"""Every file ends in one documented status: no crash, at most 1 GB of memory, no timeout."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import make_music
from tests.fuzz_decoder import EXPECTED_STATUSES, mutants, statuses
from tests.test_audio import wav_bytes, write_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> dict[str, Path]:
    return write_songs(tmp_path_factory.mktemp("songs"), ("flac", "mp3"), 3)


def statuses_in(folder: Path) -> dict[str, str]:
    return {path.name: status for path, status in statuses(iter(sorted(p for p in folder.iterdir() if p.is_file())))}


@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_random_damage_ends_in_an_expected_status(tmp_path, count):
    outcome = {path.name: status for path, status in statuses(mutants(tmp_path, count, seed=0))}
    assert len(outcome) == count
    assert {name: status for name, status in outcome.items() if status not in EXPECTED_STATUSES} == {}
    assert len(set(outcome.values())) > 1


def test_wrong_headers_and_degenerate_content(songs, tmp_path):
    samples = (make_music(3, 44_100) * 32767).astype("<i2").tobytes()
    wav = functools.partial(wav_bytes, samples, rate=44_100)
    rejected = {
        "rate 0": wav(rate=0), "rate 1": wav(rate=1), "rate 4 GHz": wav(rate=2**32 - 1), "no channel": wav(channels=0),
        "65535 channels": wav(channels=65_535), "9 channels": wav(channels=9),
    }  # fmt: skip
    tolerated = {
        "rate 1 MHz": wav(rate=10**6), "0 bits": wav(bits=0), "64 bits": wav(bits=64), "no data": wav(data=0),
        "2 GB of data": wav(data=2**31 - 2**20), "4 GB of data": wav(data=2**32 - 1),
        "riff 0": wav(riff=0), "riff 4 GB": wav(riff=2**32 - 1),
    }  # fmt: skip
    for name, content in (rejected | tolerated).items():
        (tmp_path / f"{name}.wav").write_bytes(content)
    flac = bytearray(songs["flac"].read_bytes())
    flac[21] = flac[21] & 0xF0 | 0x0F  # total samples: 36 bits after rate, channels and bits
    flac[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a month.flac").write_bytes(flac)
    for suffix in ("wav", "mp3", "flac", "ogg", "m4a"):
        (tmp_path / f"empty.{suffix}").touch()
        (tmp_path / f"one byte.{suffix}").write_bytes(b"\xff")
        (tmp_path / f"zeros.{suffix}").write_bytes(bytes(100_000))
    soundfile.write(tmp_path / "one sample.wav", np.ones(1, np.float32), 44_100)
    soundfile.write(tmp_path / "no sample.wav", np.ones(0, np.float32), 44_100)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("huge", 1e30)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(88_200, value, np.float32), 44_100, subtype="FLOAT")
    outcome = statuses_in(tmp_path)
    assert set(outcome.values()) <= EXPECTED_STATUSES
    assert {outcome.pop(f"{name}.wav") for name in rejected} <= EXPECTED_STATUSES - {"ok"}
    outcome = {name: status for name, status in outcome.items() if Path(name).stem not in tolerated}
    assert outcome.pop("one sample.wav") == "too_short"
    assert outcome.pop("a month.flac") == "ok"
    assert {outcome.pop(f"{name}.wav") for name in ("nan", "inf", "huge")} == {"invalid"}
    assert set(outcome.values()) == {"unreadable"}


@pytest.mark.slow
def test_ten_hours_of_silence_in_a_small_flac_are_bounded(tmp_path):
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 4_000, 1, format="FLAC") as file:
        for _ in range(10):
            file.write(np.zeros(4_000 * 3600, np.int16))
    assert path.stat().st_size < 600_000
    assert statuses_in(tmp_path) == {"bomb.flac": "silent"}


def test_playlists_named_mp3_open_neither_files_nor_network(songs, tmp_path):
    requests = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/song.mp3"
    texts = {
        "m3u": "#EXTM3U\n#EXTINF:10,x\n{}\n",
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
        "concat": "ffconcat version 1.0\nfile '{}'\n",
        "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 1 {}\n",
        "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    }
    for kind, text in texts.items():
        for place, target in (("path", songs["mp3"]), ("file", songs["mp3"].as_uri()), ("web", address)):
            (tmp_path / f"{kind} {place}.mp3").write_text(text.format(target))
    outcome = statuses_in(tmp_path)
    server.shutdown()
    server.server_close()
    assert len(outcome) == 18 and set(outcome.values()) == {"unreadable"}
    assert requests == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX devices")
def test_devices_pipes_and_link_loops_are_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    (tmp_path / "endless.wav").symlink_to("/dev/zero")
    (tmp_path / "itself.mp3").symlink_to("itself.mp3")
    files = [tmp_path / name for name in ("pipe.mp3", "endless.wav", "itself.mp3")]
    assert {status for _, status in statuses(iter(files))} == {"unreadable"}
