"""Open an audio file: soundfile (libsndfile) where it reads the whole file, PyAV (FFmpeg) otherwise.

Lengths in headers are only used to detect truncated files: samples are read until the decoder returns none.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from musicclass.errors import DecodeError

Array = npt.NDArray[np.float32]
T = TypeVar("T")

BLOCK_FRAMES = 524_288  # per read; large blocks switch less often between decoding and feature extraction
AV_BLOCK_FRAMES = 65_536  # packets hold about 1,000 samples; larger blocks have less overhead downstream
PYAV_OPTIONS = {  # without these lists, FFmpeg follows a playlist named .mp3 to other files or to the network
    "format_whitelist": "mp3,mov,flac,ogg,wav,w64,aiff,aac,asf,matroska,ape,wv,caf,au,mpc,mpc8,tta,ac3",
    "protocol_whitelist": "file",
}
OTHER_KINDS = {  # first bytes: what such a file is, and what helps
    rb"version https://git-lfs": "a Git LFS pointer, not the audio; run git lfs pull",
    rb"<!doctype|<html|<\?xml": "a web page, not audio; download the file itself",
    rb"PK\x03\x04|Rar!|7z\xbc\xaf": "an archive; extract its files",
    rb"\x00\x05\x16\x07": "metadata that macOS keeps beside a file; give the file without ._ in its name",
    rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF": "an image or document, not audio",
    rb"DSD |\x7f\xfe\x80\x01|RIFF....AVI ": "in a format that isn't supported; convert it to wav or flac",
}
RAW_STREAMS = {"mp3", "aac", "ac3"}  # formats without a length in the header, meant to be played despite damage
MAX_DAMAGED_PACKETS = 0.02  # of the packets of a raw stream

WAV_SIGNATURES = (b"RIFF", b"RIFX", b"RF64")
SIGNATURES = (b"rif", b"FORM", b"fLaC", b".snd", b"caf", b"NIST")
LENGTH_UNKNOWN = 2**40  # frames; a larger count in a header means "unknown"
SIZE_UNKNOWN = 2**31 - 65_536  # bytes; programs that write to a pipe put such sizes into the header
MAX_CHUNKS = 1000  # in a wav file
MAX_LIST_BYTES = 2**20
OGG_BLOCK = 2**20  # bytes
MAX_MISSING_SECONDS = 0.5
MAX_MISSING_BYTES = 0.005  # of the size in the header
MAX_EXTRA_BYTES = 0.009  # of an mp3, after the size in its Xing header; libsndfile prints warnings above that


@contextmanager
def open_audio(source: str | os.PathLike[str] | IO[bytes], max_channels: int) -> Iterator[tuple[int, Iterator[Array]]]:
    """The sample rate (Hz) and an iterator of blocks (n, channels), which may share memory.

    Raises DecodeError, also while iterating.
    """
    if isinstance(source, str | os.PathLike):
        with _open(source, max_channels) as opened:
            yield opened
        return
    file = _ReadErrors(source)
    try:
        with _open(cast(IO[bytes], file), max_channels) as opened:
            yield opened
    except Exception:
        file.check()  # it explains the other error
        raise
    file.check()


@contextmanager
def _open(source: str | os.PathLike[str] | IO[bytes], max_channels: int) -> Iterator[tuple[int, Iterator[Array]]]:
    file = open_soundfile(source)
    if file is not None:
        with file:
            check_channels(file.channels, max_channels)
            yield file.samplerate, _soundfile_blocks(file, source)
    else:
        with _open_av(source) as container:
            audio = container.streams.audio[0]
            yield audio.rate or 0, _av_blocks(container, audio)


class _ReadErrors:
    """A binary file that keeps its first error: decoders take a failed read for the end of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        return self._call(self._file.read, b"", size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._call(self._file.seek, -1, offset, whence)

    def tell(self) -> int:
        return self._call(self._file.tell, -1)

    def _call(self, method: Callable[..., T], failed: T, *arguments: int) -> T:
        if self.error is None:
            try:
                return method(*arguments)
            except Exception as error:
                self.error = error
        return failed

    def check(self) -> None:
        """Raise DecodeError where reading failed."""
        if self.error is not None:
            reason = self.error.strerror if isinstance(self.error, OSError) else self.error
            raise DecodeError(
                f"can't be read ({reason or self.error}); check the disk or the connection, and try again"
            )


def _check_path(path: Path) -> Path:
    """The path itself. Raises DecodeError when it is not a readable, non-empty regular file."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise DecodeError("no such file; check the name") from None
    except PermissionError:
        raise DecodeError("no permission to read it; change the permissions, or ask its owner") from None
    except (OSError, ValueError) as error:
        raise DecodeError(f"can't be opened ({error}); check the disk and the name") from None
    if stat.S_ISDIR(status.st_mode):
        readable = os.access(path, os.R_OK | os.X_OK)
        reason = "a folder without audio files" if readable else "no permission to read this folder"
        raise DecodeError(f"{reason}; give another folder, or change the permissions")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not a regular file; give an audio file or a folder")
    if not status.st_size:
        raise DecodeError("empty (0 bytes); copy it again from its source")
    return path


def check_channels(channels: int, max_channels: int) -> None:
    """Raise DecodeError for no or too many channels."""
    if not 1 <= channels <= max_channels:
        raise DecodeError(
            f"{channels} channels, outside 1 to {max_channels}; downmix the file, or transpose samples (channels, n)"
        )


def decode_error(error: Exception) -> DecodeError:
    """A DecodeError for any exception of a decoder."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DecodeError(f"not audio, or damaged ({reason}); check if it plays, or convert it to wav or flac")


def _not_audio(source: str | os.PathLike[str] | IO[bytes], error: Exception) -> DecodeError:
    """What a file is that isn't audio, by its first bytes; else `decode_error`."""
    with contextlib.suppress(OSError, ValueError):
        with open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
            file.seek(0)
            head = file.read(64).lstrip()
        for pattern, message in OTHER_KINDS.items():
            if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
                return DecodeError(message)
    return decode_error(error)


# libsndfile


def open_soundfile(source: str | os.PathLike[str] | IO[bytes], sequential: bool = True) -> Any:
    """A soundfile.SoundFile, or None where libsndfile can't read the source or would not read all of it."""
    import soundfile

    if isinstance(source, str | os.PathLike):
        source = _check_path(Path(source))
    try:
        if _libsndfile_reads_all(source):
            file = soundfile.SoundFile(os.fspath(source) if isinstance(source, Path) else source)
            if file.frames < LENGTH_UNKNOWN:
                if sequential:  # otherwise soundfile seeks after each block, which restarts decoders
                    file.seekable = lambda: False
                return file
            file.close()
    except (soundfile.LibsndfileError, TypeError, UnicodeEncodeError):
        pass
    if not isinstance(source, Path):
        source.seek(0)
    return None


def _soundfile_blocks(file: Any, source: str | os.PathLike[str] | IO[bytes]) -> Iterator[Array]:
    """All blocks; where libsndfile fails, such as at tags after the audio, those that remain come from FFmpeg."""
    import soundfile

    rate, frames = file.samplerate, 0
    buffer = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while True:
        try:
            block = file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            yield from _remaining_blocks(file, source, frames, str(error))
            return
        if not len(block):
            break
        frames += len(block)
        yield block
    if not frames:  # a recorder that crashed leaves a size of 0
        yield from _remaining_blocks(file, source, 0, "no samples")
        return
    check_chunk_sizes(file)
    _check_duration(frames / rate, file.frames / rate)


def _remaining_blocks(
    file: Any, source: str | os.PathLike[str] | IO[bytes], n_frames: int, reason: str
) -> Iterator[Array]:
    """The blocks after `n_frames`, by FFmpeg. Raises DecodeError where it fails, too."""
    if not isinstance(source, str | os.PathLike):
        source.seek(0)
    with _open_av(source) as container:
        audio = container.streams.audio[0]
        if (audio.rate, audio.channels) != (file.samplerate, file.channels):
            raise DecodeError(f"damaged after {n_frames / file.samplerate:.1f} s ({reason}); copy it again")
        for block in _av_blocks(container, audio):
            yield block[n_frames:]
            n_frames = max(0, n_frames - len(block))


# FFmpeg


def open_container(source: str | os.PathLike[str] | IO[bytes]) -> Any:
    """PyAV's container of an allow-listed format. Raises av.error.FFmpegError or ValueError."""
    import av

    source = os.path.abspath(source) if isinstance(source, str | os.PathLike) else source
    # Until PyAV 19, metadata that isn't UTF-8 is an error by default.
    options: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "ignore"}
    return av.open(source, options=PYAV_OPTIONS, **options)


@contextmanager
def _open_av(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[Any]:
    import av.error

    try:
        container = open_container(source)
    except (av.error.FFmpegError, ValueError) as error:
        raise _not_audio(source, error) from None
    with container:
        if not container.streams.audio:
            raise DecodeError("no audio stream; give an audio file")
        if container.streams.audio[0].codec_context is None:
            raise DecodeError("unsupported codec; convert it to wav or flac")
        yield container


def _av_blocks(container: Any, audio: Any) -> Iterator[Array]:
    import av
    import av.error

    n_packets, n_damaged, end = 0, 0, 0.0
    setup: Any = None
    to_float: Any = None
    rate = audio.rate  # both the decoder's and those of frames can change
    try:
        for packet in container.demux(audio):
            n_packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                n_damaged += 1
                continue
            for frame in frames:
                if setup != (setup := (frame.rate, frame.layout.name, frame.format.name)):
                    yield from _flushed(to_float)
                    channels = frame.layout if to_float is None else to_float.layout
                    to_float = av.AudioResampler("fltp", channels, rate, AV_BLOCK_FRAMES)
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                yield from (block.to_ndarray().T for block in to_float.resample(frame))
        yield from _flushed(to_float)
    except (av.error.FFmpegError, ValueError) as error:
        raise decode_error(error) from None
    is_raw = container.format.name in RAW_STREAMS
    if n_damaged > (max(1, MAX_DAMAGED_PACKETS * n_packets) if is_raw else 0):
        raise decode_error(ValueError(f"{n_damaged} of {n_packets} packets"))
    if not is_raw and container.format.name != "as":  # durations of ASF files include a preroll
        _check_duration(end, _av_duration(container, audio))


def _flushed(resampler: Any) -> Iterator[Array]:
    """The last samples of a resampler, if there is one."""
    return (block.to_ndarray().T for block in (resampler.resample(None) if resampler else ()))


def _av_duration(container: Any, audio: Any) -> float:
    """Seconds that the header gives; 0 if unknown."""
    if audio.duration and audio.time_base:
        return float((audio.duration + max(0, audio.start_time or 0)) * audio.time_base)
    return float(container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


# Headers: file type, and truncated files


def _libsndfile_reads_all(source: Path | IO[bytes]) -> bool:
    """Whether the signature is one of libsndfile's, or the file is MPEG-1 layer III with a correct Xing header.

    For other mp3 files, libsndfile estimates the length and stops there. Raises DecodeError for an mp3 that is shorter
    than its Xing header says.
    """
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0, os.SEEK_END)
        if not (size := file.tell()):
            raise DecodeError("empty (0 bytes); copy or send it again from its source")
        file.seek(0)
        head, start = file.read(36), 0
        if head[:3] == b"ID3" and len(head) == 36:  # the tag's size: 4 x 7 bits
            start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(start)
        frame = file.read(256)
        is_complete = head.startswith(SIGNATURES)
        if head.startswith(WAV_SIGNATURES):  # wav format 0x55: mp3 inside
            is_complete = head[20:22] != b"\x55\x00" and _is_consistent_wav(file, head)
        elif head.startswith(b"OggS"):
            is_complete = _has_one_ogg_stream(file)
        file.seek(0)
    if is_complete or head.startswith((*WAV_SIGNATURES, b"OggS")):
        return is_complete
    xing = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:2] not in (b"\xff\xfa", b"\xff\xfb") or not 0 <= xing < len(frame) - 16 or frame[xing + 7] & 3 != 3:
        return False
    (expected,) = struct.unpack(">I", frame[xing + 12 : xing + 16])
    _check_size(size - start, expected)
    return bool(size - start <= expected * (1 + MAX_EXTRA_BYTES))


def _is_consistent_wav(file: IO[bytes], head: bytes) -> bool:
    """Whether libsndfile can read a wav file.

    It never returns where a chunk in a LIST chunk ends after it, and reads too little where a block is too small.
    """
    if head[12:16] == b"fmt " and head[:4] != b"RIFX" and len(head) == 36:
        codec, channels, _, _, block, bits = struct.unpack("<HHIIHH", head[20:])
        if codec in (1, 3) and block < channels * ((bits + 7) // 8):
            return False
    header, position = struct.Struct(">4sI" if head[:4] == b"RIFX" else "<4sI"), 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        chunk = file.read(header.size)
        if len(chunk) < header.size:
            return True
        name, size = header.unpack(chunk)
        if name == b"data" and head[:4] == b"RF64" and len(head) == 36:  # its size is in the chunk ds64
            (size,) = struct.unpack("<Q", head[28:])
        if name == b"LIST":
            content = file.read(min(size, MAX_LIST_BYTES))[4:]
            while len(content) >= header.size:
                _, inner = header.unpack(content[: header.size])
                if inner > len(content) - header.size:
                    return False
                content = content[header.size + inner + inner % 2 :]
        position += header.size + size + size % 2
    return False


def _has_one_ogg_stream(file: IO[bytes]) -> bool:
    """Whether one page of an ogg file begins a stream: of a chain, libsndfile reads one link."""
    file.seek(0)
    begin, count, rest = b"OggS\0\2", 0, b""
    while (block := file.read(OGG_BLOCK)) and count < 2:
        count += (rest + block).count(begin)
        rest = (rest + block)[1 - len(begin) :]
    return count < 2


def check_chunk_sizes(file: Any) -> None:
    """Raise DecodeError when libsndfile's log says that chunks of a wav or aiff file are truncated."""
    for expected, size in re.findall(r": (\d+) \(should be (\d+)\)", file.extra_info):
        if int(expected) < SIZE_UNKNOWN:
            _check_size(int(size), int(expected))


def _check_size(size: int, expected: int) -> None:
    if size < expected * (1 - MAX_MISSING_BYTES):
        raise DecodeError(f"truncated: {size:,} of {expected:,} bytes; copy it again from its source")


def _check_duration(seconds: float, expected: float) -> None:
    if expected - seconds > MAX_MISSING_SECONDS:
        raise DecodeError(f"truncated: {seconds:.1f} of {expected:.1f} s; copy it again from its source")
