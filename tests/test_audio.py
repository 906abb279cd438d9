"""Decoding: every format, in blocks, and every way in which a file can be bad."""

from __future__ import annotations

import io
import mmap
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from musicclass import audio
from musicclass.config import AudioConfig
from musicclass.errors import AudioError, DecodeError, InvalidSampleError, SilentError
from tests.conftest import RATE, make_music, make_noise, make_tone

BY_SOUNDFILE = {"wav": "PCM_16", "flac": "PCM_16", "mp3": None, "ogg": None, "aiff": "PCM_16", "au": "PCM_16"}
BY_AV = {"m4a": "aac", "opus": "libopus", "wma": "wmav2", "wv": "wavpack", "mka": "flac", "caf": "pcm_s16le"}


def encode(path: Path, samples: np.ndarray, rate: int, codec: str) -> Path:
    """Write (n,) samples with FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            part.pts = None
            fifo.write(part)
        size = stream.codec_context.frame_size or 4096
        while part := fifo.read(size, partial=True):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder, sound = tmp_path_factory.mktemp("formats"), make_music(6, 44_100)
    made = {}
    for ending, subtype in BY_SOUNDFILE.items():
        made[ending] = folder / f"clip.{ending}"
        soundfile.write(made[ending], np.stack([sound, sound], axis=1), 44_100, subtype=subtype)
    for ending, codec in BY_AV.items():
        rate = 48_000 if ending == "opus" else 44_100
        made[ending] = encode(folder / f"clip.{ending}", make_music(6, rate), rate, codec)
    made["alac.m4a"] = encode(folder / "clip.alac.m4a", sound, 44_100, "alac")
    return made


@pytest.mark.parametrize("ending", [*BY_SOUNDFILE, *BY_AV, "alac.m4a"])
def test_every_format_gives_the_same_music(files, ending):
    sound, wanted = audio.load(files[ending], RATE), make_music(6)
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert abs(len(sound) - len(wanted)) < 0.1 * RATE
    spectra = [np.abs(np.fft.rfft(x[: 5 * RATE], 8 * RATE))[: 8 * 4000] for x in (sound, wanted)]
    assert np.corrcoef(*spectra)[0, 1] > 0.95


def test_a_file_at_the_models_rate_comes_out_bit_for_bit(wav):
    sound = make_noise(10)
    np.testing.assert_array_equal(audio.load(wav(sound), RATE), sound)


def test_channels_are_averaged(wav):
    left, right = make_noise(1, seed=1), make_noise(1, seed=2)
    np.testing.assert_allclose(audio.load(wav(np.stack([left, right], 1)), RATE), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_pitch_and_length(wav, rate):
    sound = audio.load(wav(make_tone(440, 3, rate), rate), RATE)
    assert abs(len(sound) - 3 * RATE) <= 2
    spectrum = np.abs(np.fft.rfft(sound))
    assert abs(spectrum.argmax() * RATE / len(sound) - 440) < 1


def test_file_objects_are_as_good_as_paths(files):
    for ending in ("mp3", "m4a", "flac"):
        whole = audio.load(files[ending], RATE)
        np.testing.assert_array_equal(audio.load(io.BytesIO(files[ending].read_bytes()), RATE), whole)
        with files[ending].open("rb") as file:
            np.testing.assert_array_equal(audio.load(file, RATE), whole)


def test_a_file_in_memory_whose_seek_tells_nothing(files):
    with files["wav"].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        np.testing.assert_array_equal(audio.load(view, RATE), audio.load(files["wav"], RATE))


def test_objects_that_are_no_audio_files_are_decode_errors(files):
    closed = files["wav"].open("rb")
    closed.close()
    for source, message in ((closed, "closed"), (io.BytesIO(b""), "empty"), (io.BytesIO(b"text"), "not audio")):
        with pytest.raises(DecodeError, match=message):
            audio.load(source, RATE)
    for source in (io.StringIO("text"), None, b"song.wav" * 9999, 3):
        with pytest.raises(TypeError, match="needs a path or an open binary file") as caught:
            audio.load(source, RATE)
        assert len(str(caught.value)) < 100


def test_reading_stops_at_the_limit(wav):
    path = wav(make_noise(10))
    assert len(audio.load(path, RATE, AudioConfig(max_seconds=2))) == 2 * RATE


def test_blocks_are_bounded(wav):
    sizes = [len(block) for block in audio.stream(wav(make_noise(20)), RATE)]
    assert max(sizes) <= audio.BLOCK_FRAMES and sum(sizes) == 20 * RATE


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "aiff", "au", "m4a", "wma", "wv", "alac.m4a", "mka"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9])
def test_cut_short_files_are_named(files, tmp_path, ending, share):
    cut = tmp_path / f"cut.{ending}"
    content = files[ending].read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DecodeError, match=r"cut\."):
        audio.load(cut, RATE)


def test_an_mp3_without_length_is_read_to_its_end(files, tmp_path):
    content = bytearray(files["mp3"].read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    assert place > 0
    content[place : place + 4] = b"\0\0\0\0"
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(bytes(content))
    assert abs(len(audio.load(bare, RATE)) / RATE - 6) < 0.1


@pytest.mark.parametrize("before", [b"", b"ID3\4\0\0\0\0\0\0", b"\0" * 300], ids=["nothing", "a tag", "zeros"])
def test_an_mp3_without_length_is_read_whatever_stands_before_it(files, tmp_path, before):
    content = bytearray(files["mp3"].read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    content[place : place + 4] = b"\0\0\0\0"
    path = tmp_path / "odd.mp3"
    path.write_bytes(before + bytes(content))
    assert abs(len(audio.load(path, RATE)) / RATE - 6) < 0.1


def test_a_damaged_stretch_of_an_mp3_is_passed_over(files, tmp_path):
    content = bytearray(files["mp3"].read_bytes())
    content[20_000:20_500] = bytes(500)
    path = tmp_path / "scratched.mp3"
    path.write_bytes(bytes(content))
    assert abs(len(audio.load(path, RATE)) / RATE - 6) < 0.2


def test_flac_from_a_pipe_is_read_whole(files, tmp_path):
    content = bytearray(files["flac"].read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of the number of samples
    content[22:26] = bytes(4)
    path = tmp_path / "pipe.flac"
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(audio.load(path, RATE), audio.load(files["flac"], RATE))


def test_a_codec_that_nobody_knows(tmp_path):
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 8036, b"WAVE", b"fmt ", 16, 0x9999, 1, 8000, 8000, 1, 8, b"data", 8000
    )
    path = tmp_path / "strange.wav"
    path.write_bytes(header + bytes(range(250)) * 32)
    with pytest.raises(DecodeError, match="strange"):
        audio.load(path, RATE)


def bad_files(folder: Path) -> dict[str, tuple[Path, type[AudioError], str]]:
    """Name -> (path, error, what its message says)."""

    def put(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def sound(name: str, samples: np.ndarray, rate: int = RATE) -> Path:
        soundfile.write(folder / name, samples, rate, subtype="FLOAT")
        return folder / name

    nan, infinite = make_noise(2), make_noise(2)
    nan[1000], infinite[1000] = np.nan, np.inf
    lying = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, 999_999, 1_999_998, 2, 16, b"data", 4
    )
    (folder / "folder.wav").mkdir()
    return {
        "missing": (folder / "missing.wav", DecodeError, "no such file"),
        "a folder": (folder / "folder.wav", DecodeError, "a folder without audio"),
        "empty": (put("empty.mp3", b""), DecodeError, "empty"),
        "text": (put("text.mp3", b"this is no music\n" * 100), DecodeError, "not audio"),
        "one byte": (put("one.mp3", b"\xff"), DecodeError, "not audio"),
        "two bytes": (put("two.mp3", b"\xff\xfb"), DecodeError, "not audio"),
        "a picture": (put("picture.flac", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(500)), DecodeError, "not audio"),
        "raw": (put("noise.raw", bytes(1000)), DecodeError, "not audio"),
        "a playlist": (put("list.mp3", b"#EXTM3U\n#EXTINF:1,\nother.wav\n"), DecodeError, "not audio"),
        "no samples": (sound("none.wav", np.zeros(0)), DecodeError, "no sound"),
        "silence": (sound("silent.wav", np.zeros(RATE)), SilentError, "silence"),
        "almost silence": (sound("faint.wav", make_noise(2) * 1e-6), SilentError, "silence"),
        "NaN": (sound("nan.wav", nan), InvalidSampleError, "NaN"),
        "absurdly loud": (sound("loud.wav", make_noise(2) * 1e30), InvalidSampleError, "absurd"),
        "infinite": (sound("infinite.wav", infinite), InvalidSampleError, "NaN, infinite"),
        "16 channels": (sound("wide.wav", np.tile(make_noise(1)[:, None], 16)), DecodeError, "16 channels"),
        "2 kHz": (sound("slow.wav", make_noise(1), 2_000), DecodeError, "2000 Hz"),
        "1 MHz": (put("fast.wav", lying + bytes(4)), DecodeError, "999999 Hz"),
    }


NAMES = [
    "missing", "a folder", "empty", "text", "one byte", "two bytes", "a picture", "raw", "a playlist", "no samples",
    "silence", "almost silence", "absurdly loud", "NaN", "infinite", "16 channels", "2 kHz", "1 MHz",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bad_files_say_what_is_wrong(tmp_path, name):
    path, error, message = bad_files(tmp_path)[name]
    with pytest.raises(error, match=message) as caught:
        audio.load(path, RATE)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_playlist_reads_no_other_file(wav, tmp_path):
    other = wav(make_noise(2), name="other.wav")
    for ending, text in {"mp3": "#EXTM3U\n{}\n", "wav": "ffconcat version 1.0\nfile {}\n"}.items():
        trap = tmp_path / f"trap.{ending}"
        trap.write_text(text.format(other.name))
        with pytest.raises(DecodeError):
            audio.load(trap, RATE)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(wav):
    path = wav(make_noise(1))
    path.chmod(0)
    with pytest.raises(DecodeError, match="permission"):
        audio.load(path, RATE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(DecodeError, match="not a regular file"):
        audio.load(tmp_path / "pipe.wav", RATE)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "m4a", "wv"])
def test_flipped_bytes_never_do_worse_than_an_error(files, tmp_path, ending):
    rng = np.random.default_rng(0)
    original = files[ending].read_bytes()
    for number in range(15):
        mutant = bytearray(original)
        for place in rng.integers(0, min(len(mutant), 4096) if number % 2 else len(mutant), 8):
            mutant[place] = rng.integers(256)
        path = tmp_path / f"mutant.{ending}"
        path.write_bytes(mutant)
        try:
            sound = audio.load(path, RATE)
        except AudioError as error:
            assert "mutant" in str(error)
        else:
            assert np.isfinite(sound).all()
