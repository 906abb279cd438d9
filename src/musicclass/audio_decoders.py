"""Open an audio file: soundfile (libsndfile) where it reads the whole file, PyAV (FFmpeg) otherwise.

Lengths in headers are only used to detect truncated files: samples are read until the decoder returns none.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from musicclass.errors import DecodeError

Array = npt.NDArray[np.float32]

BLOCK_FRAMES = 524_288  # per read; large blocks switch less often between decoding and feature extraction
AV_BLOCK_FRAMES = 65_536  # packets hold about 1,000 samples; larger blocks have less overhead downstream
PYAV_OPTIONS = {  # without these lists, FFmpeg follows a playlist named .mp3 to other files or to the network
    "format_whitelist": "mp3,mov,flac,ogg,wav,w64,aiff,aac,asf,matroska,ape,wv,caf,au,mpc,mpc8,tta,ac3",
    "protocol_whitelist": "file",
}
RAW_STREAMS = {"mp3", "aac", "ac3"}  # formats without a length in the header, meant to be played despite damage
MAX_DAMAGED_PACKETS = 0.02  # of the packets of a raw stream

SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"rif", b"FORM", b"fLaC", b"OggS", b".snd", b"caf", b"NIST")
LENGTH_UNKNOWN = 2**40  # frames; a larger count in a header means "unknown"
SIZE_UNKNOWN = 2**31 - 65_536  # bytes; programs that write to a pipe put such sizes into the header
MAX_MISSING_SECONDS = 0.5
MAX_MISSING_BYTES = 0.005  # of the size in the header
MAX_EXTRA_BYTES = 0.009  # of an mp3, after the size in its Xing header; libsndfile prints warnings above that


@contextmanager
def open_audio(source: str | os.PathLike[str] | IO[bytes], max_channels: int) -> Iterator[tuple[int, Iterator[Array]]]:
    """The sample rate (Hz) and an iterator of blocks (n, channels), which may share memory.

    Raises DecodeError, also while iterating.
    """
    file = open_soundfile(source)
    if file is not None:
        with file:
            check_channels(file.channels, max_channels)
            yield file.samplerate, _soundfile_blocks(file)
    else:
        with _open_av(source) as container:
            audio = container.streams.audio[0]
            yield audio.rate or 0, _av_blocks(container, audio)


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


def _soundfile_blocks(file: Any) -> Iterator[Array]:
    import soundfile

    rate, frames = file.samplerate, 0
    buffer = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while True:
        try:
            block = file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            raise DecodeError(f"damaged after {frames / rate:.1f} s ({error}); copy it again") from None
        if not len(block):
            break
        frames += len(block)
        yield block
    check_chunk_sizes(file)
    _check_duration(frames / rate, file.frames / rate)


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
        raise decode_error(error) from None
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
    to_float: Any = av.AudioResampler(format="fltp", frame_size=AV_BLOCK_FRAMES)
    try:
        for packet in container.demux(audio):
            n_packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                n_damaged += 1
                continue
            for frame in frames:
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                yield from (block.to_ndarray().T for block in to_float.resample(frame))
        yield from (block.to_ndarray().T for block in to_float.resample(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise decode_error(error) from None
    is_raw = container.format.name in RAW_STREAMS
    if n_damaged > (max(1, MAX_DAMAGED_PACKETS * n_packets) if is_raw else 0):
        raise decode_error(ValueError(f"{n_damaged} of {n_packets} packets"))
    if not is_raw and container.format.name != "as":  # durations of ASF files include a preroll
        _check_duration(end, _av_duration(container, audio))


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
        head, start = file.read(32), 0
        if head[:3] == b"ID3" and len(head) == 32:  # the tag's size: 4 x 7 bits
            start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(start)
        frame = file.read(256)
        file.seek(0)
    if head.startswith(SIGNATURES):
        return head[20:22] != b"\x55\x00"  # wav format 0x55: mp3 inside
    xing = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:2] not in (b"\xff\xfa", b"\xff\xfb") or not 0 <= xing < len(frame) - 16 or frame[xing + 7] & 3 != 3:
        return False
    (expected,) = struct.unpack(">I", frame[xing + 12 : xing + 16])
    _check_size(size - start, expected)
    return bool(size - start <= expected * (1 + MAX_EXTRA_BYTES))


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
