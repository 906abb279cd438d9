"""Any audio file -> mono float32 at the model's rate, in blocks of bounded size.

soundfile reads what it can, PyAV the rest. Nothing that a header says is believed: what counts is what
comes out of the decoder, up to the limits of AudioConfig.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import soundfile
import soxr

from musicclass.config import AudioConfig, FeatureConfig
from musicclass.errors import AudioError, DecodeError, InvalidSampleError, SilentError, TooShortError, printable
from musicclass.features import Array, highest_frequency
from musicclass.halving import PASSBAND, Halver

Source = str | os.PathLike[str] | IO[bytes]

MIN_SECONDS = 1.0
BLOCK_FRAMES = 524_288  # large: to change between decoder and product costs more than memory does
GATHERED_FRAMES = 65_536
SILENCE = 2.0**-15  # one step of 16-bit audio
LOUDEST = 1e6  # times full scale; what is beyond is no sound
LENGTH_UNKNOWN = 2**40  # frame counts from here on mean that the header doesn't know
SIZE_UNKNOWN = 2**31 - 65_536  # chunk sizes from here on were written by programs that didn't know
SHORT_BY = 0.5  # seconds that may be missing of what the header promises
SHORT_SHARE = 0.005  # share of the bytes that may be missing
LONG_SHARE = 0.009  # share of the bytes that may follow after the end of an mp3; above, its decoder warns
RAW_STREAMS = {"mp3", "aac", "ac3"}  # no length in the header, and made to be played on after damage:
BAD_PACKETS = 0.02  # this share of their packets may be damaged
SIGNATURES = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b".snd", b"caff", b"NIST")
FORMATS = "mp3,mov,flac,ogg,wav,w64,aiff,aac,asf,matroska,ape,wv,caf,au,mpc,mpc8,tta,ac3"
# How PyAV opens files. Without these lists, a playlist that is named .mp3 reads other files, or the network.
OPENING: dict[str, Any] = {
    "options": {"format_whitelist": FORMATS, "protocol_whitelist": "file"},
    "metadata_errors": "ignore",
}


def load(source: Source, sample_rate: int, limits: AudioConfig | None = None) -> Array:
    """All of a file's audio: mono (n,) at `sample_rate`. For its errors see `stream`."""
    blocks = list(stream(source, sample_rate, limits))
    return np.concatenate(blocks)


def stream(
    source: Source, sample_rate: int, limits: AudioConfig | None = None, up_to: float | None = None
) -> Iterator[Array]:
    """Mono blocks (n,) of a file, or of an open binary file, at `sample_rate` (Hz).

    What lies beyond `limits.max_seconds` is not read. Frequencies above `up_to` (Hz), where it is given, may be wrong:
    that is faster. Raises, also after some blocks have come: DecodeError (missing, unreadable, not audio, cut short,
    beyond the limits), InvalidSampleError (NaN, infinite or absurd samples), SilentError and TooShortError (under a
    second). Raises TypeError for what is neither a path nor a binary file.
    """
    limits = limits or AudioConfig()
    name = source_name(source)
    _refuse_other(source)
    try:
        with _opened(source, name, limits) as (rate, blocks):
            yield from resample(blocks, rate, sample_rate, name, limits, up_to)
    except AudioError:
        raise
    except Exception as error:  # decoders meet bytes that nobody has foreseen; one file must not stop the rest
        raise _unusable(name, error) from error


def stream_for(source: Source, features: FeatureConfig, limits: AudioConfig | None = None) -> Iterator[Array]:
    """What `stream` gives, as far as log-mel frames need it."""
    return stream(source, features.sample_rate, limits, highest_frequency(features))


class Excerpts(NamedTuple):
    """Parts of a file."""

    found: list[tuple[float, Array]]  # where each begins, in seconds, and its samples (n,)
    duration: float  # of the whole file, in seconds, as its header says


def excerpts(source: Source, features: FeatureConfig, count: int, limits: AudioConfig | None = None) -> Excerpts | None:
    """`count` parts of a file, each a window long, evenly spread, as `stream_for` gives them; the rest isn't decoded.

    None where that can't be done or isn't worth it: the file has to be heard as a whole, which also tells what
    is wrong with it.
    """
    limits, found, up_to = limits or AudioConfig(), [], highest_frequency(features)
    _refuse_other(source)
    try:
        if isinstance(source, str | os.PathLike):
            source = _checked(Path(source), source_name(source))
        file = _opened_by_soundfile(source, "", soundfile.SoundFile)
        if file is None:
            return None
        with file:
            _refuse_small_chunks("", file)
            rate, length = file.samplerate, int(features.window_seconds * file.samplerate)
            frames = min(file.frames, int(limits.max_seconds * rate))
            if not file.seekable() or frames < 2 * count * length or file.channels > limits.max_channels:
                return None
            for i in range(count):
                start = (2 * i + 1) * frames // (2 * count) - length // 2
                file.seek(start)
                block = file.read(length, dtype="float32", always_2d=True)
                if len(block) < length:
                    return None
                parts = list(resample(iter([block]), rate, features.sample_rate, "", limits, up_to))
                found.append((start / rate, np.concatenate(parts)))
        return Excerpts(found, frames / rate)
    except (AudioError, soundfile.LibsndfileError):
        return None
    finally:
        if not isinstance(source, str | os.PathLike):
            source.seek(0)


def resample(
    blocks: Iterator[Any],
    rate: int,
    sample_rate: int,
    name: str,
    limits: AudioConfig | None = None,
    up_to: float | None = None,
) -> Iterator[Array]:
    """Blocks (n,) or (n, channels) at `rate` -> checked mono blocks at `sample_rate`; errors as in `stream`."""
    limits = limits or AudioConfig()
    if not limits.min_rate <= rate <= limits.max_rate:
        raise DecodeError(
            f"{name}: a sample rate of {rate} Hz is outside {limits.min_rate} to {limits.max_rate} Hz; "
            "resample it, or repair its header"
        )
    converter: Halver | _Resampler | None = None
    heard, limit, peak = 0, int(limits.max_seconds * rate), 0.0
    for block in blocks:
        block = block[: limit - heard]
        if not len(block):
            continue
        block = block if block.ndim > 1 else block[:, None]
        if converter is None:
            _refuse_channels(block.shape[1], limits, name)
            short = rate == 2 * sample_rate and up_to is not None and up_to <= PASSBAND * rate
            converter = Halver(block.shape[1]) if short else _Resampler(rate, sample_rate)
        heard += len(block)
        samples = converter.convert(block)
        peak = max(peak, _peak(samples, name))
        yield samples
        if heard >= limit:
            break
    if converter is None:
        raise DecodeError(f"{name}: holds no sound at all (0 samples); copy or export it again")
    if heard < MIN_SECONDS * rate:
        raise TooShortError(f"{name}: only {heard / rate:.2f} s long; at least {MIN_SECONDS:g} s are needed")
    samples = converter.end()
    if max(peak, _peak(samples, name)) < SILENCE:
        raise SilentError(f"{name}: nothing but silence; check how it was recorded or exported")
    yield samples


class _Resampler:
    """soxr, behind the mean of the channels."""

    def __init__(self, rate: int, sample_rate: int):
        self._soxr = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32") if rate != sample_rate else None

    def convert(self, block: Array) -> Array:
        share = np.full(block.shape[1], 1 / block.shape[1], np.float32)
        mono: Array = block @ share  # eight times as fast as block.mean(axis=1)
        return self._soxr.resample_chunk(mono) if self._soxr else mono

    def end(self) -> Array:
        nothing = np.zeros(0, np.float32)
        return self._soxr.resample_chunk(nothing, last=True) if self._soxr else nothing


def source_name(source: Source) -> str:
    """What to call a source in messages: no name moves a terminal's cursor, or can't be printed."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if not isinstance(name, str):
        return "<audio>"
    return printable(name)


def _refuse_other(source: Any) -> None:
    """Raise TypeError for what is no Source."""
    binary = hasattr(source, "read") and hasattr(source, "seek") and not isinstance(source, io.TextIOBase)
    if not binary and not isinstance(source, str | os.PathLike):
        raise TypeError(f"needs a path or an open binary file, not {type(source).__name__}")


def _refuse_channels(channels: int, limits: AudioConfig, name: str) -> None:
    if not 1 <= channels <= limits.max_channels:
        raise DecodeError(
            f"{name}: {channels} channels; between 1 and {limits.max_channels} are taken: mix it down, or, of samples "
            "(channels, n), transpose them"
        )


def _peak(mono: Array, name: str) -> float:
    peak = max(float(mono.max(initial=0)), -float(mono.min(initial=0)))
    if not peak <= LOUDEST:  # NaN is neither more nor less
        raise InvalidSampleError(f"{name}: holds NaN, infinite or absurd samples; export it anew from its source")
    return peak


@contextmanager
def _opened(source: Source, name: str, limits: AudioConfig) -> Iterator[tuple[int, Iterator[Array]]]:
    """The sample rate, and blocks (n, channels)."""
    if isinstance(source, str | os.PathLike):
        source = _checked(Path(source), name)
    file = _opened_by_soundfile(source, name)
    if file is not None:
        with file:
            _refuse_channels(file.channels, limits, name)
            yield file.samplerate, _soundfile_blocks(file, name)
    else:
        with _opened_by_av(source, name) as container:
            audio = container.streams.audio[0]
            yield audio.rate or 0, _gathered(_av_blocks(container, audio, name))


def _checked(path: Path, name: str) -> Path:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise DecodeError(f"{name}: no such file; check the name") from None
    except PermissionError:
        raise DecodeError(f"{name}: no permission to read it; change that, or ask its owner") from None
    except (OSError, ValueError) as error:
        raise DecodeError(f"{name}: can't be opened ({error}); check the disk and the name") from None
    if stat.S_ISDIR(status.st_mode):
        readable = os.access(path, os.R_OK | os.X_OK)
        why = "a folder without audio files in it" if readable else "no permission to look into this folder"
        raise DecodeError(f"{name}: {why}; give another, or change that")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(f"{name}: not a regular file; give an audio file or a folder")
    if not status.st_size:
        raise DecodeError(f"{name}: empty (0 bytes); copy it again from its source")
    return path


class _Forwards(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read from its beginning to its end.

    After each block of a file that it may seek in, soundfile seeks to where it is, and decoders begin anew there.
    """

    def seekable(self) -> bool:
        return False


def _opened_by_soundfile(
    source: Path | IO[bytes], name: str, kind: type[soundfile.SoundFile] = _Forwards
) -> soundfile.SoundFile | None:
    """None where libsndfile can't read the source, or would not read all of it."""
    try:
        if _suits_soundfile(source, name):
            file = kind(os.fspath(source) if isinstance(source, Path) else source)
            if file.frames < LENGTH_UNKNOWN:
                return file
            file.close()
    except (soundfile.LibsndfileError, TypeError, UnicodeEncodeError):
        pass
    if not isinstance(source, Path):
        source.seek(0)
    return None


def _suits_soundfile(source: Path | IO[bytes], name: str) -> bool:
    """Whether the file starts like one of libsndfile's, or is MPEG-1 layer III with a fitting Xing header.

    Of another mp3, libsndfile would guess the length and stop there, and its decoder would chatter on
    stderr. Raises DecodeError for an mp3 that is shorter than its Xing header says.
    """
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0, os.SEEK_END)
        if not (size := file.tell()):
            raise DecodeError(f"{name}: empty (0 bytes); copy or send it again from its source")
        file.seek(0)
        head, first = file.read(32), 0
        if head[:3] == b"ID3" and len(head) == 32:
            first = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(first)
        frame = file.read(256)
        file.seek(0)
    if head.startswith(SIGNATURES):
        return head[20:22] != b"\x55\x00"  # an mp3 dressed as wav
    xing = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:2] not in (b"\xff\xfa", b"\xff\xfb") or not 0 <= xing < len(frame) - 16 or frame[xing + 7] & 3 != 3:
        return False
    (promised,) = struct.unpack(">I", frame[xing + 12 : xing + 16])
    _refuse_small(name, size - first, promised)
    return bool(size - first <= promised * (1 + LONG_SHARE))


def _soundfile_blocks(file: soundfile.SoundFile, name: str) -> Iterator[Array]:
    rate, frames = file.samplerate, 0
    buffer = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while True:
        try:
            block = file.read(out=buffer)  # the same memory each time: converters copy what they keep
        except soundfile.LibsndfileError as error:
            raise DecodeError(f"{name}: damaged after {frames / rate:.1f} s ({error}); copy it again") from None
        if not len(block):
            break
        frames += len(block)
        yield block
    _refuse_small_chunks(name, file)
    _refuse_cut(name, frames, file.frames, rate)


def _refuse_small_chunks(name: str, file: soundfile.SoundFile) -> None:
    for promised, found in re.findall(r": (\d+) \(should be (\d+)\)", file.extra_info):
        if int(promised) < SIZE_UNKNOWN:
            _refuse_small(name, int(found), int(promised))


@contextmanager
def _opened_by_av(source: Path | IO[bytes], name: str) -> Iterator[Any]:
    import av
    import av.error

    target = os.path.abspath(source) if isinstance(source, Path) else source
    try:
        container = av.open(target, **OPENING)
    except (av.error.FFmpegError, ValueError) as error:
        raise _unusable(name, error) from None
    with container:
        if not container.streams.audio:
            raise DecodeError(f"{name}: has no sound in it; give an audio file")
        if container.streams.audio[0].codec_context is None:
            raise DecodeError(f"{name}: coded in a way that nothing here can decode; convert it to wav or flac")
        yield container


def _av_blocks(container: Any, audio: Any, name: str) -> Iterator[Array]:
    import av
    import av.error

    packets, bad, end, to_float = 0, 0, 0.0, av.AudioResampler(format="fltp")
    try:
        for packet in container.demux(audio):
            packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                bad += 1
                continue
            for frame in frames:
                end = max(end, (frame.time or 0.0) + frame.samples / frame.sample_rate)
                for part in to_float.resample(frame):
                    block: Array = part.to_ndarray().T.astype(np.float32, copy=False)
                    yield block
    except (av.error.FFmpegError, ValueError) as error:
        raise _unusable(name, error) from None
    kind = container.format.name
    if bad > (max(1, BAD_PACKETS * packets) if kind in RAW_STREAMS else 0):
        raise _unusable(name, ValueError(f"{bad} of {packets} packets"))
    if kind not in RAW_STREAMS and kind != "asf":  # ASF's duration holds a preroll, or is made up
        promised = _av_seconds(container, audio)
        _refuse_cut(name, int(end * audio.rate), int(promised * audio.rate), audio.rate)


def _gathered(blocks: Iterator[Array]) -> Iterator[Array]:
    """Larger blocks: what is done with each costs as much as some thousand frames of it."""
    parts: list[Array] = []
    for block in blocks:
        parts.append(block)
        if sum(map(len, parts)) >= GATHERED_FRAMES:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def _av_seconds(container: Any, audio: Any) -> float:
    if audio.duration and audio.time_base:
        return float((audio.duration + max(0, audio.start_time or 0)) * audio.time_base)
    return float(container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _unusable(name: str, error: Exception) -> DecodeError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DecodeError(f"{name}: not audio, or damaged ({reason}); see if it plays, or convert it to wav or flac")


def _refuse_cut(name: str, frames: int, promised: int, rate: int) -> None:
    if promised - frames > SHORT_BY * rate:
        raise DecodeError(
            f"{name}: cut short: {frames / rate:.1f} s of the {promised / rate:.1f} s it should have; "
            "copy it again from its source"
        )


def _refuse_small(name: str, found: int, promised: int) -> None:
    if found < promised * (1 - SHORT_SHARE):
        raise DecodeError(
            f"{name}: cut short: {found:,} of the {promised:,} bytes it should have; copy it again from its source"
        )
