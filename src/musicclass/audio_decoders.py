"""Open an audio file: soundfile (libsndfile) where it reads the whole file, PyAV (FFmpeg) otherwise.

Lengths in headers only serve to find how much is lost: samples are read until the decoder returns none.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from musicclass import audio_headers as headers
from musicclass.audio_stderr import quiet_c_libraries
from musicclass.errors import DecodeError

Array = npt.NDArray[np.float32]
T = TypeVar("T")
OnLost = Callable[[float], None]  # gets the seconds of audio that damage costs, or a missing end

SILENCE = 2.0**-15  # one step of 16-bit audio
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
    rb"DSD |\x7f\xfe\x80\x01|\x0bw|G.{187}G|RIFF....AVI ": "not a supported format; convert it to wav or flac",
}
RAW_STREAMS = {"mp3", "aac", "ac3"}  # formats without timestamps; FFmpeg guesses their length
MAX_DEMUX_ERRORS = 100
MAX_DAMAGED_BYTES = 0.5  # of all packets; more isn't audio
LENGTH_UNKNOWN = 2**40  # frames; a larger count in a header means "unknown"


@contextmanager
def open_audio(
    source: str | os.PathLike[str] | IO[bytes], max_channels: int, on_lost: OnLost
) -> Iterator[tuple[int, Iterator[Array]]]:
    """The sample rate (Hz) and an iterator of blocks (n, channels), which may share memory.

    Raises DecodeError, also while iterating.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, str | os.PathLike):
            path = _check_path(Path(source))
            file = _AudioPart(stack.enter_context(path.open("rb")))
            if not file.find():
                yield stack.enter_context(_open(path, max_channels, on_lost))
                return
        else:
            file = _AudioPart(source)
            file.find()
        yield stack.enter_context(_open_file(file, max_channels, on_lost))


@contextmanager
def _open_file(file: _AudioPart, max_channels: int, on_lost: OnLost) -> Iterator[tuple[int, Iterator[Array]]]:
    try:
        with _open(cast(IO[bytes], file), max_channels, on_lost) as opened:
            yield opened
    except Exception:
        file.check()  # it explains the other error
        raise
    file.check()


@contextmanager
def _open(
    source: str | os.PathLike[str] | IO[bytes], max_channels: int, on_lost: OnLost
) -> Iterator[tuple[int, Iterator[Array]]]:
    file = open_soundfile(source)
    if file is not None:
        with file:
            check_channels(file.channels, max_channels)
            yield file.samplerate, _soundfile_blocks(file, source, on_lost)
    else:
        seconds, index = headers.header_seconds(source), _audible_stream(source)
        with _open_av(source) as container:
            audio = container.streams.audio[index]
            yield audio.rate or 0, _av_blocks(container, audio, seconds, on_lost)


class _AudioPart:
    """The part of a binary file with the audio; it keeps its first error, which decoders take for the file's end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._start, self._end = file, 0, sys.maxsize
        self.error: Exception | None = None

    def find(self) -> bool:
        """Skip an ID3v2 tag before another format, and data chunks after a longer one; whether there are any."""
        self.seek(0)
        size = headers.id3_size(self.read(headers.ID3_HEADER))
        self.seek(size)
        self._start = size if size and self.read(4) in headers.TAGGED_SIGNATURES else 0
        self._end = self._start + headers.end_of_audio(cast(IO[bytes], self))
        self.seek(0)
        return bool(self._start) or self._end < sys.maxsize

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self._start - self.tell())
        return self._call(self._file.read, b"", min(left, size) if size >= 0 else left if left < 2**62 else -1)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END and self._end < sys.maxsize:
            offset, whence = offset + self._end, os.SEEK_SET
        elif whence == os.SEEK_SET:
            offset += self._start
        self._call(self._file.seek, 0, offset, whence)
        return self.tell()

    def tell(self) -> int:
        return self._call(self._file.tell, self._start - 1) - self._start

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
    if path == Path():
        raise DecodeError("an empty name, or the current folder without audio files; give a file or another folder")
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
            head = file.read(256).lstrip(b" \t\r\n")
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
        if headers.libsndfile_reads_all(source):
            with quiet_c_libraries():
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


def _soundfile_blocks(file: Any, source: str | os.PathLike[str] | IO[bytes], on_lost: OnLost) -> Iterator[Array]:
    """All blocks; where libsndfile fails or stops early, as at damage, those that remain come from FFmpeg."""
    import soundfile

    rate, frames, reason = file.samplerate, 0, "no samples"  # a recorder that crashed leaves a size of 0
    buffer = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while True:
        try:
            with quiet_c_libraries():
                block = file.read(out=buffer)
        except soundfile.LibsndfileError as error:
            yield from _remaining_blocks(file, source, frames, str(error), on_lost)
            return
        if not len(block):
            break
        frames += len(block)
        yield block
    if not frames or headers.missing_seconds(frames / rate, file.frames / rate):
        yield from _remaining_blocks(file, source, frames, reason, on_lost)
    elif share := headers.missing_share(file):
        on_lost(frames / rate * share / (1 - share))


def _remaining_blocks(
    file: Any, source: str | os.PathLike[str] | IO[bytes], n_frames: int, reason: str, on_lost: OnLost
) -> Iterator[Array]:
    """The blocks after `n_frames`, by FFmpeg. Raises DecodeError where it fails, too."""
    seconds, lost, n_yielded = headers.header_seconds(source), list[float](), n_frames
    with _open_av(source) as container:
        audio = container.streams.audio[0]
        if (audio.rate, audio.channels) != (file.samplerate, file.channels):
            raise DecodeError(f"damaged after {n_frames / file.samplerate:.1f} s ({reason}); copy it again")
        for block in _av_blocks(container, audio, seconds, lost.append):
            n_yielded += len(block[n_frames:])
            yield block[n_frames:]
            n_frames = max(0, n_frames - len(block))
    if lost:  # FFmpeg may lose more, such as what libsndfile found after damage
        missing = max(0, file.frames - n_yielded) / file.samplerate
        on_lost(min(missing, sum(lost)) if file.frames else sum(lost))


# FFmpeg


def open_container(source: str | os.PathLike[str] | IO[bytes]) -> Any:
    """PyAV's container of an allow-listed format. Raises av.error.FFmpegError or ValueError."""
    import av

    if isinstance(source, str | os.PathLike):
        source = os.path.abspath(source)
    else:
        source.seek(0)
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


def _audible_stream(source: str | os.PathLike[str] | IO[bytes]) -> int:
    """The index of the first audio stream that isn't silent; 0 where all are."""
    with _open_av(source) as container:
        count = len(container.streams.audio)
    for index in range(count) if count > 1 else ():
        with _open_av(source) as container, contextlib.suppress(DecodeError):
            for block in _av_blocks(container, container.streams.audio[index], 0, lambda seconds: None):
                if np.abs(block).max(initial=0) >= SILENCE:
                    return index
    return 0


def _av_blocks(container: Any, audio: Any, header_seconds: float, on_lost: OnLost) -> Iterator[Array]:
    """All blocks that can be decoded; damaged packets are skipped."""
    import av
    import av.error

    n_bytes, n_damaged, seconds, end = 0, 0, 0.0, 0.0
    damage: Exception | None = None
    setup: Any = None
    to_float: Any = None
    rate = audio.rate  # both the decoder's and those of frames can change
    try:
        for packet in _packets(container, audio):
            n_bytes += packet.size
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:  # each codec has errors of its own for damage
                n_damaged, damage = n_damaged + packet.size, error
                continue
            for frame in frames:
                if setup != (setup := (frame.rate, frame.layout.name, frame.format.name)):
                    yield from _flushed(to_float)
                    channels = frame.layout if to_float is None else to_float.layout
                    to_float = av.AudioResampler("fltp", channels, rate, AV_BLOCK_FRAMES)
                seconds += frame.samples / frame.sample_rate
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                yield from (block.to_ndarray().T for block in to_float.resample(frame))
        yield from _flushed(to_float)
    except (av.error.FFmpegError, ValueError) as error:
        raise decode_error(error) from None
    if damage and n_damaged > MAX_DAMAGED_BYTES * n_bytes:
        raise decode_error(damage)
    lost = seconds * n_damaged / max(1, n_bytes - n_damaged)
    if not (expected := header_seconds) and container.format.name not in RAW_STREAMS:
        start = max(0.0, float((audio.start_time or 0) * (audio.time_base or 0)))
        expected = (_av_duration(container, audio) or end) - start
    if lost := max(lost, headers.missing_seconds(seconds, expected)):
        on_lost(lost)


def _packets(container: Any, audio: Any) -> Iterator[Any]:
    """The packets of a stream, also those after damage if FFmpeg finds them."""
    import av.error

    has_any = False
    for _ in range(MAX_DEMUX_ERRORS):
        try:
            for packet in container.demux(audio):
                has_any = True
                yield packet
            return
        except av.error.InvalidDataError:
            if not has_any:
                raise


def _flushed(resampler: Any) -> Iterator[Array]:
    """The last samples of a resampler, if there is one."""
    return (block.to_ndarray().T for block in (resampler.resample(None) if resampler else ()))


def _av_duration(container: Any, audio: Any) -> float:
    """Seconds that the header gives; 0 if unknown."""
    if container.format.name == "caf" and audio.frames and audio.rate:  # whose duration is that of the file's end
        return float(audio.frames / audio.rate)
    if audio.duration and audio.time_base:
        return float((audio.duration + max(0, audio.start_time or 0)) * audio.time_base)
    return float(container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0
