"""Headers of audio files: which decoder can read a file, how long it should be, and how much of it is missing."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple

from musicclass.errors import DecodeError

ASF_SIGNATURE, ASF_PROPERTIES = (
    bytes.fromhex(text) for text in ("3026b2758e66cf11a6d900aa0062ce6c", "a1dcab8c47a9cf118ee400c00c205365")
)
ASF_HEADER = 2**16  # bytes
MPEG_RATES = (44_100, 48_000, 32_000)  # Hz; MPEG-2 has half of them

WAV_SIGNATURES = (b"RIFF", b"RIFX", b"RF64")
TAGGED_SIGNATURES = (*WAV_SIGNATURES, b"FORM", b"fLaC", b"OggS")  # after an ID3v2 tag
ID3_HEADER = 10  # bytes
SIGNATURES = (b"rif", b"FORM", b"fLaC", b".snd", b"caf", b"NIST")
SIZE_UNKNOWN = 2**31 - 65_536  # bytes; programs that write to a pipe put such sizes into the header
MAX_CHUNKS = 1000  # in a wav file
MAX_LIST_BYTES = 2**20
OGG_BLOCK = 2**20  # bytes
MAX_MISSING_SECONDS = 0.5
MAX_HEADER_SECONDS = 86_400  # a longer file by its header is an error in the header
MAX_MISSING_BYTES = 0.005  # of the size in the header
MAX_EXTRA_BYTES = 0.009  # of an mp3, after the size in its Xing header; libsndfile prints warnings above that


def libsndfile_reads_all(source: Path | IO[bytes]) -> bool:
    """Whether the signature is one of libsndfile's, or the file is MPEG-1 layer III with a correct Xing header.

    For other mp3 files, libsndfile estimates the length and stops there.
    """
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0, os.SEEK_END)
        if not (size := file.tell()):
            raise DecodeError("empty (0 bytes); copy or send it again from its source")
        file.seek(0)
        head = file.read(36)
        is_complete = head.startswith(SIGNATURES)
        if head.startswith(WAV_SIGNATURES):  # wav format 0x55: mp3 inside
            is_complete = head[20:22] != b"\x55\x00" and _is_consistent_wav(file, head)
        elif head.startswith(b"OggS"):
            is_complete = _has_one_ogg_stream(file)
        elif not is_complete and (xing := _read_xing(file)) and xing.is_mpeg1:
            audio_size = size - xing.start
            is_complete = xing.n_bytes * (1 - MAX_MISSING_BYTES) <= audio_size <= xing.n_bytes * (1 + MAX_EXTRA_BYTES)
        file.seek(0)
    return is_complete


def id3_size(head: bytes) -> int:
    """The bytes of an ID3v2 tag, of whose size 4 x 7 bits are in its header; 0 without one."""
    if head[:3] != b"ID3" or len(head) < ID3_HEADER:
        return 0
    return ID3_HEADER + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


class _Xing(NamedTuple):
    """The contents of the Xing header of an mp3."""

    start: int  # of that frame, in bytes
    is_mpeg1: bool
    n_bytes: int
    seconds: float


def _read_xing(file: IO[bytes]) -> _Xing | None:
    """The Xing or Info header of an mp3; None without one."""
    file.seek(0)
    start = id3_size(file.read(ID3_HEADER))
    file.seek(start)
    frame = file.read(256)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    is_mpeg1 = frame[:2] in (b"\xff\xfa", b"\xff\xfb")
    if not is_mpeg1 and frame[:2] not in (b"\xff\xf2", b"\xff\xf3"):
        return None
    if not 0 <= place < len(frame) - 16 or frame[place + 7] & 3 != 3 or frame[2] >> 2 & 3 == 3:
        return None
    n_frames, n_bytes = struct.unpack(">II", frame[place + 8 : place + 16])
    rate = MPEG_RATES[frame[2] >> 2 & 3]  # MPEG-2 has half as many samples in a frame, at half the rate
    return _Xing(start, is_mpeg1, n_bytes, n_frames * 1152 / rate)


def header_seconds(source: str | os.PathLike[str] | IO[bytes]) -> float:
    """The duration in seconds by the header of an mp3 or ASF file, which FFmpeg ignores; 0 without one.

    An open file is then at its start.
    """
    with open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        xing = _read_xing(file)
        file.seek(0)
        head = file.read(ASF_HEADER) if not xing else b""
        file.seek(0)
    if xing:
        return xing.seconds
    place = head.find(ASF_PROPERTIES) if head.startswith(ASF_SIGNATURE) else -1
    if not 0 <= place < len(head) - 88:
        return 0.0
    duration, _, preroll = struct.unpack("<QQQ", head[place + 64 : place + 88])
    return float(duration / 1e7 - preroll / 1e3)


def _is_consistent_wav(file: IO[bytes], head: bytes) -> bool:
    """Whether libsndfile can read a wav file.

    It never returns where a chunk in a LIST chunk ends after it, and reads too little where a block is too small.
    """
    if head[12:16] == b"fmt " and head[:4] != b"RIFX" and len(head) == 36:
        codec, channels, _, _, block, bits = struct.unpack("<HHIIHH", head[20:])
        if codec in (1, 3) and block < channels * ((bits + 7) // 8):
            return False
    header, n_chunks = _chunk_header(head), 0
    for name, position, size in _wav_chunks(file, head):
        n_chunks += 1
        if name == b"LIST":
            file.seek(position)
            content = file.read(min(size, MAX_LIST_BYTES))[4:]
            while len(content) >= header.size:
                _, inner = header.unpack(content[: header.size])
                if inner > len(content) - header.size:
                    return False
                content = content[header.size + inner + inner % 2 :]
    return n_chunks < MAX_CHUNKS


def end_of_audio(file: IO[bytes]) -> int:
    """The end of the longest data chunk of a wav file, where decoders would read a shorter one after it."""
    file.seek(0)
    head = file.read(36)
    if not head.startswith(WAV_SIGNATURES):
        return sys.maxsize
    data = [(size, position) for name, position, size in _wav_chunks(file, head) if name == b"data"]
    size, position = max(data, default=(0, 0))
    return position + size if data and data[-1] != (size, position) else sys.maxsize


def _chunk_header(head: bytes) -> struct.Struct:
    return struct.Struct(">4sI" if head[:4] == b"RIFX" else "<4sI")


def _wav_chunks(file: IO[bytes], head: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, position and size in bytes of the content of the first MAX_CHUNKS chunks; `head`: the first 36 bytes."""
    header, position = _chunk_header(head), 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        chunk = file.read(header.size)
        if len(chunk) < header.size:
            return
        name, size = header.unpack(chunk)
        if name == b"data" and head[:4] == b"RF64" and len(head) == 36:  # its size is in the chunk ds64
            (size,) = struct.unpack("<Q", head[28:])
        position += header.size
        yield name, position, size
        position += size + size % 2


def _has_one_ogg_stream(file: IO[bytes]) -> bool:
    """Whether one page of an ogg file begins a stream: of a chain, libsndfile reads one link."""
    file.seek(0)
    begin, count, rest = b"OggS\0\2", 0, b""
    while (block := file.read(OGG_BLOCK)) and count < 2:
        count += (rest + block).count(begin)
        rest = (rest + block)[1 - len(begin) :]
    return count < 2


def missing_share(file: Any) -> float:
    """The share of a wav or aiff file that is missing at its end, by libsndfile's log of its chunks; 0 to 1."""
    share, log = 0.0, file.extra_info
    is_complete = re.search(r"(?m)^ ?(data|SSND) : \d+$", log)
    for name, expected, size in re.findall(r"(?m)^ *(\w+.*?) *: (\d+) \(should be (\d+)\)", log):
        if int(expected) < SIZE_UNKNOWN and not (is_complete and name in ("RIFF", "FORM")):
            share = max(share, 1 - int(size) / max(1, int(expected)))
    return min(share, 0.999) if share > MAX_MISSING_BYTES else 0.0


def missing_seconds(seconds: float, expected: float) -> float:
    """What is missing of an expected duration; 0 for little, and where the expectation can't be true."""
    missing = expected - seconds
    return missing if missing > MAX_MISSING_SECONDS and expected < MAX_HEADER_SECONDS else 0.0
