"""Audio file or waveform -> checked mono blocks at the model's sample rate, with bounded memory.

Decoding itself is in audio_decoders.py. Sample rate, channels, duration and sample values are limited by AudioConfig.
"""

from __future__ import annotations

import functools
import inspect
import io
import math
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from musicclass import audio_decoders as decoders
from musicclass import audio_headers
from musicclass.audio_decoders import BLOCK_FRAMES, SILENCE, Array, OnLost
from musicclass.audio_stderr import quiet_c_libraries
from musicclass.config import AudioConfig
from musicclass.errors import (
    AudioError,
    DecodeError,
    InvalidSampleError,
    SilentError,
    TooShortError,
    escape_control_chars,
    naming_errors,
)

Source = str | os.PathLike[str] | IO[bytes]
T = TypeVar("T")

MIN_SECONDS = 1.0
DC_OFFSET = 0.02  # of the mean of a block: far above that of music, so other blocks stay as they are
OPPOSITE_PHASE = 4  # 6 dB; of wide stereo, the mean has more power than the difference
MAX_ABS_SAMPLE = 1e6  # full scale is 1; larger values are damage, such as integers read as floats


def load(source: Source, sample_rate: int, limits: AudioConfig | None = None) -> Array:
    """Decode a file into one mono waveform (n,) at `sample_rate`. For its errors see `stream`."""
    return np.concatenate(list(stream(source, sample_rate, limits)))


def stream(
    source: Source, sample_rate: int, limits: AudioConfig | None = None, on_lost: OnLost = lambda seconds: None
) -> Iterator[Array]:
    """Decode a file, given by its path or as an open binary file, into mono blocks (n,) at `sample_rate` (Hz).

    Audio after `limits.max_seconds` is not read. Damaged parts are skipped; at the end, `on_lost` gets the seconds that
    they or a missing end cost. Raises, also after some blocks: DecodeError (missing, unreadable, not
    audio, beyond the limits), InvalidSampleError (NaN, infinite or huge samples), SilentError and
    TooShortError (under a second); their messages begin with the file's name. Raises TypeError for a source that is
    neither a path nor a binary file.
    """
    limits = limits or AudioConfig()
    source, lost = _seekable(source), list[float]()
    with naming_errors(source_name(source)):
        try:
            yield from _with_time_limit(_decode(source, sample_rate, limits, lost.append), limits.max_step_seconds)
        except TooShortError:
            if not lost:
                raise
            reason = f"damaged or truncated: {sum(lost):.1f} s are lost, and under {MIN_SECONDS:g} s is left"
            raise DecodeError(f"{reason}; copy it again from its source") from None
        except AudioError:
            raise
        except Exception as error:  # damaged bytes raise anything in decoders; one file must not stop the others
            raise decoders.decode_error(error) from error
    if lost:
        on_lost(sum(lost))


def _decode(source: Source, sample_rate: int, limits: AudioConfig, on_lost: OnLost) -> Generator[Array, None, None]:
    with decoders.open_audio(source, limits.max_channels, on_lost) as (rate, blocks):
        if not rate:
            raise decoders.decode_error(ValueError("no sample rate"))
        yield from _to_mono(blocks, rate, sample_rate, limits)


def _with_time_limit(items: Generator[T, None, None], seconds: float) -> Iterator[T]:
    """The items, each computed within `seconds` in a thread of its own; as they are where that is 0.

    A decoder that never returns can't be stopped, but be abandoned, and Ctrl-C works meanwhile. Raises DecodeError.
    """
    if not seconds:
        yield from items
        return
    end = object()

    def step(results: queue.SimpleQueue[tuple[Any, BaseException | None]]) -> None:
        try:
            results.put((next(items, end), None))
        except BaseException as error:
            results.put((end, error))

    while True:
        results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=step, args=(results,), daemon=True).start()
        try:
            item, error = results.get(timeout=seconds)
        except queue.Empty:
            raise DecodeError(f"a decoder takes more than {seconds:g} s; check if it plays, and the disk") from None
        if error is not None:
            raise error
        if item is end:
            return
        try:
            yield item
        except GeneratorExit:
            items.close()
            raise


def stream_waveform(
    waveform: npt.NDArray[np.floating | np.integer], rate: int, sample_rate: int, limits: AudioConfig | None = None
) -> Iterator[Array]:
    """`stream` for a waveform (n,) or (n, channels) at `rate` (Hz); the same errors.

    Samples are floating point in [-1, 1], or int16 or int32, whose full scale is that of the type. Raises ValueError
    for others, and for a rate that isn't a number.
    """
    waveform = np.asarray(waveform)
    is_integer = waveform.dtype in (np.int16, np.int32)
    if waveform.ndim not in (1, 2) or not (is_integer or np.issubdtype(waveform.dtype, np.floating)):
        raise ValueError(f"needs floats, int16 or int32, (n,) or (n, channels), not {waveform.dtype} {waveform.shape}")
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number):
        raise ValueError(f"needs a sample rate in Hz, not {rate!r}")
    scale = np.float32(1 / 2.0 ** (8 * waveform.dtype.itemsize - 1) if is_integer else 1)
    starts = range(0, len(waveform), BLOCK_FRAMES)
    blocks = (waveform[start : start + BLOCK_FRAMES].astype(np.float32) * scale for start in starts)
    yield from stream_blocks(blocks, rate, sample_rate, limits, "<waveform>")


def stream_blocks(
    blocks: Iterator[Array], rate: float, sample_rate: int, limits: AudioConfig | None = None, name: str = "<audio>"
) -> Iterator[Array]:
    """`stream` for blocks (n,) or (n, channels) of floats at `rate` (Hz) as they arrive; `name` begins its messages."""
    with naming_errors(name):
        yield from _to_mono(blocks, rate, sample_rate, limits or AudioConfig())


def sample_blocks(
    source: Source, sample_rate: int, seconds: float, count: int, limits: AudioConfig | None = None
) -> tuple[list[tuple[float, Array]], float] | None:
    """Decode only `count` evenly spread blocks of `seconds` each, as `stream` would.

    Returns (start in seconds, samples (n,)) of each, and the duration of the whole file in seconds, from its header.
    None where the format can't seek, the file is too short to gain from it, or anything is wrong with it: `stream`
    then decodes it in full, or raises the error.
    """
    limits = limits or AudioConfig()
    source = _seekable(source)
    try:
        steps = _with_time_limit(
            _open_and_read_blocks(source, sample_rate, seconds, count, limits), limits.max_step_seconds
        )
        return next(steps)
    except Exception:
        return None


def _open_and_read_blocks(
    source: Source, sample_rate: int, seconds: float, count: int, limits: AudioConfig
) -> Generator[tuple[list[tuple[float, Array]], float] | None, None, None]:
    file = decoders.open_soundfile(source, sequential=False)
    if file is None:
        return
    with file:
        if not audio_headers.missing_share(file):
            yield _read_blocks(file, sample_rate, seconds, count, limits)


def _read_blocks(
    file: Any, sample_rate: int, seconds: float, count: int, limits: AudioConfig
) -> tuple[list[tuple[float, Array]], float] | None:
    rate, length = file.samplerate, int(seconds * file.samplerate)
    frames = min(file.frames, int(limits.max_seconds * rate))
    if not file.seekable() or frames < 2 * count * length or file.channels > limits.max_channels:
        return None
    blocks = []
    for i in range(count):
        start = (2 * i + 1) * frames // (2 * count) - length // 2
        with quiet_c_libraries():
            file.seek(start)
            block = file.read(length, dtype="float32", always_2d=True)
        if len(block) < length:
            return None
        blocks.append((start / rate, np.concatenate(list(_to_mono(iter([block]), rate, sample_rate, limits)))))
    return blocks, frames / rate


def source_name(source: Source) -> str:
    """The name of a source in messages, with control characters escaped."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return escape_control_chars(name) if isinstance(name, str) else "<audio>"


def _seekable(source: Any) -> Source:
    """The source itself; the content of a pipe or an HTTP response, which can't seek."""
    if isinstance(source, str | os.PathLike):
        return source
    hint = "; use io.BytesIO" if isinstance(source, bytes | bytearray | memoryview) else ""
    if not hasattr(source, "read") or isinstance(source, io.TextIOBase):
        raise TypeError(f"needs a path or an open binary file, not {type(source).__name__}{hint}")
    if inspect.iscoroutinefunction(source.read):
        raise TypeError("an asynchronous file; give io.BytesIO(await file.read())")
    is_open = not getattr(source, "closed", False)  # else decoding says so
    if not hasattr(source, "seek") or (is_open and hasattr(source, "seekable") and not source.seekable()):
        return io.BytesIO(source.read())
    return cast(IO[bytes], source)


def _to_mono(blocks: Iterator[Array], rate: float, sample_rate: int, limits: AudioConfig) -> Iterator[Array]:
    """Blocks (n,) or (n, channels) at `rate` -> checked mono blocks at `sample_rate`; errors as in `stream`."""
    if not limits.min_rate <= rate <= limits.max_rate:
        raise DecodeError(
            f"sample rate of {rate} Hz, outside {limits.min_rate} to {limits.max_rate} Hz; "
            "resample the file, or repair its header"
        )
    resample, downmix = _resampler(rate, sample_rate), _downmixer(limits.max_channels)
    n_frames, max_frames, peak = 0, int(limits.max_seconds * rate), 0.0
    for block in blocks:
        mono = downmix(block[: max_frames - n_frames])
        if not len(mono):
            continue
        n_frames += len(mono)
        if DC_OFFSET < abs(offset := mono.mean(dtype=np.float64)) <= 1:  # more is damage, which `_peak` reports
            mono = mono - np.float32(offset)
        samples = resample(mono, False)
        peak = max(peak, _peak(samples))
        yield samples
        if n_frames >= max_frames:
            break
    if not n_frames:
        raise DecodeError("no samples; copy or export it again")
    if n_frames < MIN_SECONDS * rate:
        seconds = math.floor(100 * n_frames / rate) / 100  # never 1.00
        raise TooShortError(f"only {seconds:.2f} s long; needs at least {MIN_SECONDS:g} s")
    rest = resample(np.zeros(0, np.float32), True)
    if max(peak, _peak(rest)) < SILENCE:
        raise SilentError("silent throughout; check how it was recorded or exported")
    yield rest


def _resampler(rate: float, sample_rate: int) -> Callable[[Array, bool], Array]:
    """A function of the next samples, and whether they are the last."""
    if rate == sample_rate:
        return lambda samples, last: samples
    import soxr

    return soxr.ResampleStream(rate, sample_rate, 1, dtype="float32").resample_chunk  # type: ignore[no-any-return]


def _downmixer(max_channels: int) -> Callable[[Array], Array]:
    """A function of blocks (n,) or (n, channels): the mean over channels.

    Of stereo in opposite phase, as from a wrongly wired cable, the mean is nearly silence. So where half the difference
    of the channels of the first block with sound has OPPOSITE_PHASE times the power of their mean, it is used instead.
    """
    signs: list[np.ufunc] = []

    def downmix(block: Array) -> Array:
        if block.ndim == 1 or not len(block):
            return block
        n_channels = block.shape[1]
        decoders.check_channels(n_channels, max_channels)
        if n_channels == 1:
            return block[:, 0].copy()  # the decoder overwrites its block
        combine: np.ufunc = np.add
        if n_channels == 2:
            if not signs and np.any(block):
                powers = [float(np.sum(ufunc(*block.T) ** 2)) for ufunc in (np.add, np.subtract)]
                signs.append(np.subtract if powers[1] > OPPOSITE_PHASE * powers[0] else np.add)
            combine = signs[0] if signs else np.add
        mono: Array = functools.reduce(combine, block.T)  # for stereo, 30 times as fast as block.mean(axis=1)
        mono *= np.float32(1 / n_channels)
        return mono

    return downmix


def _peak(mono: Array) -> float:
    peak = max(float(mono.max(initial=0)), -float(mono.min(initial=0)))
    if not peak <= MAX_ABS_SAMPLE:  # True for NaN as well
        raise InvalidSampleError("NaN, infinite or huge samples; export it again from its source")
    return peak
