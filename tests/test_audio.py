"""Decoding: formats, resampling, bounded memory, and damaged files."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import re
import struct
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from musicclass import audio
from musicclass.audio_decoders import BLOCK_FRAMES
from musicclass.audio_stderr import quiet_c_libraries
from musicclass.config import AudioConfig
from musicclass.errors import DecodeError, InvalidSampleError, SilentError, TooShortError
from tests.conftest import RATE, make_music, make_noise, make_tone

SOUNDFILE_FORMATS = ("wav", "flac", "mp3", "ogg", "aiff", "au", "w64", "rf64")
AV_FORMATS = {
    "m4a": "aac", "opus": "libopus", "wma": "wmav2", "wv": "wavpack", "mka": "flac", "caf": "pcm_s16le",
    "alac.m4a": "alac", "aac": "aac", "ac3": "ac3", "tta": "tta", "mp2": "mp2", "webm": "libopus", "3gp": "aac",
}  # fmt: skip


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


def write_songs(folder: Path, suffixes: Iterable[str], seconds: float) -> dict[str, Path]:
    """Music in each format, stereo where soundfile writes it."""
    songs = {suffix: folder / f"song.{suffix}" for suffix in suffixes}
    for suffix, path in songs.items():
        rate = 48_000 if suffix in ("opus", "webm") else 44_100
        music = make_music(seconds, rate)
        if suffix in AV_FORMATS:
            encode(path, music, rate, AV_FORMATS[suffix])
        else:
            soundfile.write(path, np.stack([music, music], axis=1), rate)
    return songs


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return write_songs(tmp_path_factory.mktemp("formats"), [*SOUNDFILE_FORMATS, *AV_FORMATS], 6)


@pytest.mark.parametrize("suffix", [*SOUNDFILE_FORMATS, *AV_FORMATS])
def test_all_formats_decode_to_the_same_spectrum(files, suffix):
    sound, expected = audio.load(files[suffix], RATE), make_music(6)
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert abs(len(sound) - len(expected)) < 0.1 * RATE
    spectra = [np.abs(np.fft.rfft(x[: 5 * RATE], 8 * RATE))[: 8 * 4000] for x in (sound, expected)]
    assert np.corrcoef(*spectra)[0, 1] > 0.95


def test_samples_at_the_models_rate_are_unchanged_and_channels_are_averaged(wav):
    left, right = make_noise(2, seed=1), make_noise(2, seed=2)
    np.testing.assert_array_equal(audio.load(wav(left), RATE), left)
    np.testing.assert_allclose(audio.load(wav(np.stack([left, right], 1)), RATE), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_pitch_and_length(wav, rate):
    sound = audio.load(wav(make_tone(440, 3, rate), rate), RATE)
    assert abs(len(sound) - 3 * RATE) <= 2
    assert abs(np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound) - 440) < 1


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "flac"])
def test_binary_files_decode_like_paths(files, suffix):
    expected = audio.load(files[suffix], RATE)
    with files[suffix].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for source in (file, view, io.BytesIO(files[suffix].read_bytes())):
            np.testing.assert_array_equal(audio.load(source, RATE), expected)


def test_pipes_are_read_and_asynchronous_files_named(files):
    class Upload:
        async def read(self, size=-1):
            return b""

        async def seek(self, offset):
            pass

    class Pipe(io.RawIOBase):
        content = io.BytesIO(files["mp3"].read_bytes())

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.content.readinto(buffer)

    np.testing.assert_array_equal(audio.load(Pipe(), RATE), audio.load(files["mp3"], RATE))
    with pytest.raises(TypeError, match="asynchronous"):
        audio.load(Upload(), RATE)
    with pytest.raises(TypeError, match="BytesIO"):
        audio.load(files["mp3"].read_bytes(), RATE)


def test_invalid_sources_raise_decode_error_or_type_error(files):
    closed = files["wav"].open("rb")
    closed.close()
    for source, message in ((closed, "closed"), (io.BytesIO(b""), "empty"), (io.BytesIO(b"text"), "not audio")):
        with pytest.raises(DecodeError, match=message):
            audio.load(source, RATE)
    for source in (io.StringIO("text"), None, b"song.wav" * 9999, 3):
        with pytest.raises(TypeError, match="needs a path or an open binary file") as error:
            audio.load(source, RATE)
        assert len(str(error.value)) < 100


def test_blocks_are_bounded_and_reading_stops_at_max_seconds(wav):
    path = wav(make_noise(30))
    sizes = [len(block) for block in audio.stream(path, RATE)]
    assert max(sizes) <= BLOCK_FRAMES < sum(sizes) == 30 * RATE
    assert len(audio.load(path, RATE, AudioConfig(max_seconds=2))) == 2 * RATE


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff", "au", "m4a", "wma", "wv", "alac.m4a", "mka", "caf"])
def test_truncated_files_are_decoded_to_their_end_and_seconds_lost_reported(files, tmp_path, suffix):
    content, path = files[suffix].read_bytes(), tmp_path / f"cut.{suffix}"
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        if share < 0.1 or suffix.endswith("m4a"):  # whose header is at its end
            with pytest.raises(DecodeError, match=r"cut\."):
                audio.load(path, RATE)
        else:
            seconds, lost = decoded_and_lost(path)
            assert seconds == pytest.approx(6 * share, abs=1) and seconds + lost == pytest.approx(6, abs=0.2)


def decoded_and_lost(source) -> tuple[float, float]:
    lost = []
    n_samples = sum(map(len, audio.stream(source, RATE, on_lost=lost.append)))
    return n_samples / RATE, sum(lost)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "mka", "wma", "opus", "ogg", "ac3", "mp2"])
@pytest.mark.parametrize("has_xing", [True, False])
def test_damage_in_the_middle_costs_only_itself(tmp_path, capfd, suffix, has_xing):
    content = bytearray(write_songs(tmp_path, [suffix], 20)[suffix].read_bytes())
    if not has_xing:
        content = content.replace(b"Info", bytes(4)).replace(b"Xing", bytes(4))
    middle, length = len(content) // 2, len(content) // 10
    content[middle : middle + length] = np.random.default_rng(0).bytes(length)
    seconds, lost = decoded_and_lost(io.BytesIO(content))
    assert seconds == pytest.approx(18, abs=1) and seconds + lost == pytest.approx(20, abs=1)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("prefix", [b"", b"ID3\4\0\0\0\0\0\0", b"\0" * 300], ids=["nothing", "tag", "zeros"])
def test_mp3_without_length_is_decoded_to_its_end(files, prefix):
    content = bytearray(files["mp3"].read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    assert place > 0
    content[place : place + 4] = bytes(4)
    assert abs(len(audio.load(io.BytesIO(prefix + content), RATE)) / RATE - 6) < 0.1


def test_mp3_with_few_damaged_frames_is_decoded(files):
    content = bytearray(files["mp3"].read_bytes())
    content[20_000:20_500] = bytes(500)
    assert abs(len(audio.load(io.BytesIO(content), RATE)) / RATE - 6) < 0.2


def test_flac_of_unknown_length_is_decoded_to_its_end(files):
    content = bytearray(files["flac"].read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of the number of samples
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(audio.load(io.BytesIO(content), RATE), audio.load(files["flac"], RATE))


def wav_bytes(
    samples: bytes, rate=8_000, codec=1, channels=1, bits=16, data: int | None = None, riff: int | None = None
) -> bytes:
    """A wav file with a given, possibly wrong, header; `data` and `riff` are the sizes of these chunks."""
    data, riff = len(samples) if data is None else data, 36 + len(samples) if riff is None else riff
    block = max(1, channels * bits // 8)
    form = struct.pack("<IHHIIHH", 16, codec, channels, rate, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form + b"data" + struct.pack("<I", data) + samples


NAN, INFINITE = make_noise(2), make_noise(2)
NAN[1000], INFINITE[1000] = np.nan, np.inf
BAD_FILES = {
    "text.mp3": (b"not music\n" * 100, DecodeError, "not audio"),
    "empty.mp3": (b"", DecodeError, "empty"),
    "one_byte.mp3": (b"\xff", DecodeError, "not audio"),
    "two_bytes.mp3": (b"\xff\xfb", DecodeError, "not audio"),
    "jpeg.flac": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(500), DecodeError, "not audio"),
    "zeros.raw": (bytes(1000), DecodeError, "not audio"),
    "playlist.mp3": (b"#EXTM3U\n#EXTINF:1,\nother.wav\n", DecodeError, "not audio"),
    "codec.wav": (wav_bytes(bytes(range(250)) * 64, codec=0x9999), DecodeError, "codec"),
    "1_mhz.wav": (wav_bytes(bytes(4), rate=999_999), DecodeError, "999999 Hz"),
    "2_khz.wav": ((make_noise(1), 2_000), DecodeError, "2000 Hz"),
    "no_samples.wav": ((np.zeros(0), RATE), DecodeError, "no samples"),
    "16_channels.wav": ((np.tile(make_noise(1)[:, None], 16), RATE), DecodeError, "16 channels"),
    "short.wav": ((make_noise(0.5), RATE), TooShortError, "0.50 s"),
    "silent.wav": ((np.zeros(RATE), RATE), SilentError, "silent"),
    "nearly_silent.wav": ((make_noise(2) * 1e-6, RATE), SilentError, "silent"),
    "nan.wav": ((NAN, RATE), InvalidSampleError, "NaN"),
    "infinite.wav": ((INFINITE, RATE), InvalidSampleError, "infinite"),
    "huge.wav": ((make_noise(2) * 1e30, RATE), InvalidSampleError, "huge"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_unusable_files_raise_errors_that_name_file_and_cause(tmp_path, name):
    content, error, message = BAD_FILES[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        soundfile.write(path, *content, subtype="FLOAT")
    with pytest.raises(error, match=message) as raised:
        audio.load(path, RATE)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_paths_that_are_not_audio_files_are_named(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for message in ("missing.wav: no such file", "folder.wav: a folder without audio"):
        with pytest.raises(DecodeError, match=message):
            audio.load(tmp_path / message.partition(":")[0], RATE)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_missing_permission_is_reported(wav):
    path = wav(make_noise(1))
    path.chmod(0)
    with pytest.raises(DecodeError, match="permission"):
        audio.load(path, RATE)


def test_a_list_chunk_whose_content_is_longer_than_itself_does_not_hang(tmp_path):
    chunks = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 44100, 88200, 2, 16)
    chunks += b"LIST" + struct.pack("<I", 20) + b"INFOxyz1" + struct.pack("<I", 0xFFFFFFF8) + b"ab12" * 2
    for data, seconds in ((b"", 0), (np.int16(1000 * np.sin(np.arange(2 * 44100) / 9)).tobytes(), 2)):
        content = chunks + b"data" + struct.pack("<I", len(data)) + data
        path = tmp_path / "hang.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WAVE" + content)
        if seconds:
            assert len(audio.load(path, RATE)) == seconds * RATE
        else:
            with pytest.raises(DecodeError, match="no samples"):
                audio.load(path, RATE)


TRAILING = {
    "ID3v1": b"TAG" + b"x" * 125,
    "zeros": bytes(5000),
    "APEv2": b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0),
}


@pytest.mark.parametrize("trailing", TRAILING.values(), ids=TRAILING)
def test_flac_with_a_tag_after_its_audio_is_decoded(files, trailing):
    content = files["flac"].read_bytes()
    np.testing.assert_array_equal(audio.load(io.BytesIO(content + trailing), RATE), audio.load(files["flac"], RATE))


@pytest.mark.parametrize("positions", [(40,), (4, 40)])
def test_wav_of_a_recorder_that_crashed_is_decoded(wav, positions):
    path = wav(make_noise(3))
    content = bytearray(path.read_bytes())
    place = content.find(b"data") + 4
    for position in positions:
        content[place if position == 40 else position : (place if position == 40 else position) + 4] = bytes(4)
    np.testing.assert_allclose(audio.load(io.BytesIO(content), RATE), audio.load(path, RATE), atol=1e-4)


def test_all_links_of_a_chained_ogg_are_decoded(files):
    content = files["ogg"].read_bytes()
    serial = content[14:18]
    second = bytearray(content)
    position = 0
    while (position := second.find(b"OggS\0", position)) >= 0:  # another stream: its serial number, and checksums
        page = 27 + second[position + 26] + sum(second[position + 27 : position + 27 + second[position + 26]])
        second[position + 14 : position + 18] = bytes(255 - byte for byte in serial)
        second[position + 22 : position + 26] = bytes(4)
        second[position + 22 : position + 26] = struct.pack("<I", ogg_checksum(second[position : position + page]))
        position += page
    assert abs(len(audio.load(io.BytesIO(content + second), RATE)) / RATE - 12) < 0.1


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_links_with_the_serial_number_of_the_first_are_decoded(files, suffix):
    assert abs(len(audio.load(io.BytesIO(2 * files[suffix].read_bytes()), RATE)) / RATE - 12) < 0.1


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (22_050, 1)])
def test_a_new_rate_or_number_of_channels_keeps_pitch_and_length(rate, channels):
    parts = []
    for part_rate, part_channels in ((44_100, 2), (rate, channels)):
        part = io.BytesIO()
        tone = make_tone(440, 6, part_rate)
        soundfile.write(part, np.stack([tone] * part_channels, axis=1), part_rate, format="MP3")
        parts.append(part.getvalue())
    sound = audio.load(io.BytesIO(b"".join(parts)), RATE)
    assert abs(len(sound) / RATE - 12) < 0.2
    second = sound[8 * RATE : 10 * RATE]
    assert abs(np.abs(np.fft.rfft(second)).argmax() / 2 - 440) < 1


def test_a_wav_whose_block_is_smaller_than_its_samples_is_decoded(files):
    content = bytearray(files["wav"].read_bytes())
    content[32:34] = struct.pack("<H", 3)
    np.testing.assert_allclose(audio.load(io.BytesIO(content), RATE), audio.load(files["wav"], RATE), atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg"])
def test_an_id3_tag_before_another_format_is_skipped(files, tmp_path, suffix):
    path = tmp_path / f"tagged.{suffix}"
    path.write_bytes(b"ID3\3\0\0\0\0\2\0" + bytes(256) + files[suffix].read_bytes())
    for source in (path, io.BytesIO(path.read_bytes())):
        np.testing.assert_allclose(audio.load(source, RATE), audio.load(files[suffix], RATE), atol=1e-4)


@pytest.mark.parametrize("second", [b"", bytes(1000)])
def test_a_short_second_data_chunk_does_not_hide_the_first(files, second):
    content = files["wav"].read_bytes() + b"data" + struct.pack("<I", len(second)) + second
    sound, expected = audio.load(io.BytesIO(content), RATE), audio.load(files["wav"], RATE)
    np.testing.assert_allclose(sound[: len(expected)], expected, atol=1e-4)


def test_the_next_stream_is_decoded_where_the_first_is_silent(tmp_path):
    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, sound in zip(streams, (np.zeros(3 * RATE), make_tone(440, 3)), strict=True):
            frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
    np.testing.assert_allclose(audio.load(path, RATE), make_tone(440, 3), atol=1e-3)


def test_an_impossible_duration_in_a_header_is_ignored(files):
    content = bytearray(files["mka"].read_bytes())
    place = content.find(b"\x44\x89\x88")  # Duration, in ms
    content[place + 3 : place + 11] = struct.pack(">d", 5e9)
    assert decoded_and_lost(io.BytesIO(content)) == (pytest.approx(6, abs=0.1), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="calls C's perror of glibc")
def test_c_libraries_are_quiet_but_python_is_not(capfd):
    perror = ctypes.CDLL(None).perror
    with quiet_c_libraries(), quiet_c_libraries():
        perror(b"quiet")
        print("Python", file=sys.stderr)
    perror(b"loud")
    err = capfd.readouterr().err
    assert "quiet" not in err and "Python\n" in err and "loud" in err


def test_a_decoder_that_never_returns_is_an_error(wav, monkeypatch):
    def hang(*_):
        threading.Event().wait()

    limits = AudioConfig(max_step_seconds=0.1)
    monkeypatch.setattr(audio.decoders, "open_soundfile", hang)
    with pytest.raises(DecodeError, match="more than"):
        audio.load(wav(make_noise(2)), RATE, limits)
    assert audio.sample_blocks(wav(make_noise(2)), RATE, 0.1, 2, limits) is None


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 0x04c11db7, not reflected, initial value 0."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


def test_stereo_in_opposite_phase_is_the_difference_and_wide_stereo_the_mean():
    left, right = make_music(3), make_noise(3)
    for channels, expected in (
        ((left, -left), left),
        ((left, right), (left + right) / 2),
        ((left, -0.9 * left), 0.95 * left),
    ):
        samples = np.concatenate(list(audio.stream_waveform(np.stack(channels, axis=1), RATE, RATE)))
        np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_an_offset_is_removed_and_music_stays_as_it_is():
    music = 0.4 * make_music(15)
    (plain,) = (np.concatenate(list(audio.stream_waveform(music, RATE, RATE))),)
    np.testing.assert_array_equal(plain, music)
    shifted = np.concatenate(list(audio.stream_waveform(music + 0.5, RATE, RATE)))
    np.testing.assert_allclose(shifted, music, atol=2e-3)
    constant = np.full(3 * RATE, 0.5, np.float32)
    with pytest.raises(SilentError):
        list(audio.stream_waveform(constant, RATE, RATE))


@pytest.mark.parametrize("suffix", ["ogg", "flac", "mp3", "wav", "m4a", "opus"])
def test_a_read_error_is_an_error_with_its_reason(files, suffix):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > len(self.getvalue()) // 2:
                raise OSError(5, "Input/output error")
            return super().read(size)

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    with pytest.raises(DecodeError, match="can't be read \\(Input/output error\\)"):
        audio.load(Failing(files[suffix].read_bytes()), RATE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"PK\3\4" + bytes(60), "an archive"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "without ._ in its name"),
        (b"\x89PNG\r\n" + bytes(60), "an image"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(60), "not a supported format"),
        (b"DSD \x1c" + bytes(60), "not a supported format"),
        (b"G@\x11\x10" + bytes(184) + b"G" + bytes(187), "not a supported format"),
        (bytes(100_000), "not audio, or damaged ("),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, message):
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    for source in (path, io.BytesIO(content)):
        with pytest.raises(DecodeError, match=re.escape(message)):
            audio.load(source, RATE)
