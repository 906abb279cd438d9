"""Whatever a file is like, it ends in one named status: no crash, no more than 1 GB, no more time than allowed."""

from __future__ import annotations

import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.bad_input import NAMED, make_songs, mutants, outcomes
from tests.conftest import make_music

MUTANTS = 300


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> dict[str, Path]:
    return make_songs(tmp_path_factory.mktemp("songs"))


def statuses(folder: Path) -> dict[str, str]:
    return {path.name: status for path, status in outcomes(iter(sorted(p for p in folder.iterdir() if p.is_file())))}


def test_mutants(tmp_path):
    told = dict(outcomes(mutants(tmp_path, MUTANTS, seed=0)))
    assert len(told) == MUTANTS
    assert {path.name: status for path, status in told.items() if status not in NAMED} == {}
    assert len(set(told.values())) > 1, "some are broken, some can be heard all the same"


def test_cut_short_at_every_tenth(songs, tmp_path):
    for ending, path in songs.items():
        data = path.read_bytes()
        for tenth in range(10):
            (tmp_path / f"{ending} {tenth}.{ending}").write_bytes(data[: len(data) * tenth // 10])
    told = statuses(tmp_path)
    assert len(told) == 80 and set(told.values()) <= NAMED
    whole = {name for name, status in told.items() if status == "ok"}
    lengthless = ("ogg", "opus", "mp3", "wma")  # formats that needn't say how long they are
    assert not {name for name in whole if not name.endswith(lengthless)}, "a part is no whole"
    assert {told[f"{ending} 0.{ending}"] for ending in songs} == {"unreadable"}


def wav(
    rate: int = 44_100, channels: int = 1, bits: int = 16, data: int | None = None, riff: int | None = None
) -> bytes:
    """A wav file of three seconds whose header says what it is told to."""
    sound = (make_music(3, 44_100) * 32767).astype("<i2").tobytes()
    data, block = len(sound) if data is None else data, max(1, channels * bits // 8)
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits)
    size = 36 + len(sound) if riff is None else riff
    head = b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", data) + sound


def test_headers_that_lie(songs, tmp_path):
    lies = {
        "rate 0": wav(rate=0), "rate 1": wav(rate=1), "rate 4 GHz": wav(rate=2**32 - 1), "rate 1 MHz": wav(rate=10**6),
        "no channel": wav(channels=0), "65535 channels": wav(channels=65_535), "9 channels": wav(channels=9),
        "0 bits": wav(bits=0), "64 bits": wav(bits=64), "no data": wav(data=0), "4 GB of data": wav(data=2**32 - 1),
        "2 GB of data": wav(data=2**31 - 2**20), "riff 0": wav(riff=0), "riff 4 GB": wav(riff=2**32 - 1),
    }  # fmt: skip
    for name, content in lies.items():
        (tmp_path / f"{name}.wav").write_bytes(content)
    flac = bytearray(songs["flac"].read_bytes())
    flac[21] = flac[21] & 0xF0 | 0x0F  # total samples: 36 bits after rate, channels and bits
    flac[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a month.flac").write_bytes(flac)
    told = statuses(tmp_path)
    assert set(told.values()) <= NAMED, told
    for name in ("rate 0", "rate 1", "rate 4 GHz", "no channel", "65535 channels", "9 channels", "2 GB of data"):
        assert told[f"{name}.wav"] != "ok", name
    assert told["a month.flac"] == "unreadable"


def test_ten_hours_of_silence_in_a_small_flac(tmp_path):
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 4_000, 1, format="FLAC") as file:
        for _ in range(10):
            file.write(np.zeros(4_000 * 3600, np.int16))
    assert path.stat().st_size < 600_000
    assert statuses(tmp_path) == {"bomb.flac": "silent"}


def test_playlists_dressed_as_music_read_nothing_and_ask_no_one(songs, tmp_path):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

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
        for where, target in (("local", songs["mp3"]), ("file", songs["mp3"].as_uri()), ("web", address)):
            (tmp_path / f"{kind} {where}.mp3").write_text(text.format(target))
    told = statuses(tmp_path)
    server.shutdown()
    server.server_close()
    assert len(told) == 18 and set(told.values()) == {"unreadable"}
    assert asked == []


def test_nothing_and_next_to_nothing(tmp_path):
    for ending in ("wav", "mp3", "flac", "ogg", "m4a"):
        (tmp_path / f"empty.{ending}").touch()
        (tmp_path / f"one byte.{ending}").write_bytes(b"\xff")
        (tmp_path / f"zeros.{ending}").write_bytes(bytes(100_000))
    soundfile.write(tmp_path / "one sample.wav", np.ones(1, np.float32), 44_100)
    soundfile.write(tmp_path / "no sample.wav", np.ones(0, np.float32), 44_100)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("huge", 1e30)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(44_100 * 2, value, np.float32), 44_100, subtype="FLOAT")
    told = statuses(tmp_path)
    assert told.pop("one sample.wav") == "too short"
    assert {told.pop(f"{name}.wav") for name in ("nan", "inf", "huge")} == {"invalid"}
    assert set(told.values()) == {"unreadable"}


@pytest.mark.skipif(os.name != "posix", reason="devices are POSIX's")
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    (tmp_path / "endless.wav").symlink_to("/dev/zero")
    (tmp_path / "itself.mp3").symlink_to("itself.mp3")
    files = [tmp_path / name for name in ("pipe.mp3", "endless.wav", "itself.mp3")]
    assert {status for _, status in outcomes(iter(files))} == {"unreadable"}
