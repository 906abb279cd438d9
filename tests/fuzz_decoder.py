"""Decode randomly damaged files: python -m tests.fuzz_decoder [COUNT] [SEED].

Bytes of short songs in every format are changed, inserted or removed; half of the files have a wrong chunk size,
trailing data, scratches, a cut end, or a second file (of its own format, too) after it. Workers predict their genre.
Exit status 1 when a file crashes a worker or exceeds its time or memory limit.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicclass.library.run import ScanOptions, make_predict_task
from musicclass.workers import OK, STATUSES, TaskFailure, WorkerPool
from tests.test_audio import AV_FORMATS, SOUNDFILE_FORMATS, write_songs

TIMEOUT, MEMORY = 20.0, 1e9  # seconds, bytes
SUFFIXES = (*SOUNDFILE_FORMATS, *AV_FORMATS)
CHUNKS = (
    b"RIFF",
    b"fmt ",
    b"data",
    b"LIST",
    b"FORM",
    b"COMM",
    b"SSND",
    b"desc",
    b"moov",
    b"mdat",
    b"stsz",
    b"stco",
    b"OggS",
    b"fLaC",
    b"fact",
    b"ds64",
    b"free",
    b"trak",
    b"esds",
    b"pakt",
    b"wvpk",
    b"TTA1",
    bytes.fromhex("18538067"),  # Matroska's segment
    bytes.fromhex("1f43b675"),  # and cluster
    bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"),  # ASF's file properties
    bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),  # and data
)
SIZES = (0, 1, 2**31 - 1, 2**31, 2**32 - 12, 2**32 - 8, 2**32 - 1)
TRAILERS = (b"TAG" + bytes(125), b"APETAGEX" + b"\xff" * 24, bytes(5000), b"ID3\4\0\0\x7f\x7f\x7f\x7f")
EXPECTED_STATUSES = {OK, *STATUSES.values()}


def mutate(original: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to five random changes, mostly in the first 512 bytes, where headers are."""
    data = bytearray(original)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(min(len(data), 512) if rng.random() < 0.6 else len(data)))
        kind = rng.integers(6)
        if kind < 3:
            for at in rng.integers(place, min(len(data), place + 64) + 1, int(rng.integers(1, 9))):
                data[min(at, len(data) - 1)] = rng.integers(256)
        elif kind == 3:  # extreme lengths or counts
            data[place : place + 4] = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")[int(rng.integers(3))]
        elif kind == 4:
            data[place:place] = rng.bytes(int(rng.integers(1, 600)))
        else:
            del data[place : place + int(rng.integers(1, 600))]
        if len(data) < 16:
            break
    return bytes(data)


def harm(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A copy with a wrong chunk size, trailing data, scratches of up to 2,000 bytes, or `other` or itself after it."""
    kind = rng.integers(7)
    if kind == 0 and (names := [name for name in CHUNKS if name in content]):
        name = names[int(rng.integers(len(names)))]
        place = max(0, content.find(name) + (-4 if rng.random() < 0.5 else len(name)))
        size = int(rng.choice(SIZES)).to_bytes(4, "little" if rng.random() < 0.5 else "big")
        return content[:place] + size + content[place + 4 :]
    if kind == 1:  # in a chunk of a wav file
        inner = int(rng.choice(SIZES)).to_bytes(4, "little")
        chunk = (b"INFO", b"adtl")[int(rng.integers(2))] + b"labl" + inner + b"ab12" * 2
        return content[:12] + b"LIST" + len(chunk).to_bytes(4, "little") + chunk + content[12:]
    if kind == 2:
        return content + TRAILERS[int(rng.integers(len(TRAILERS)))]
    if kind == 3:
        damaged = bytearray(content)
        for start in rng.integers(len(content), size=int(rng.integers(1, 20))).tolist():
            length = min(int(rng.integers(1, 2000)), len(content) - start)
            damaged[start : start + length] = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
        return bytes(damaged)
    if kind == 4:
        return content[: int(rng.integers(1, len(content)))]
    return content + (other if kind == 5 else content)


def mutants(folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Damaged songs, reproducible by their seed."""
    songs = {suffix: path.read_bytes() for suffix, path in write_songs(folder, SUFFIXES, 3).items()}
    for number in range(count):
        suffix = list(songs)[number % len(songs)]
        path = folder / f"mutant {number}.{suffix}"
        rng = np.random.default_rng([seed, number])
        if rng.random() < 0.5:
            path.write_bytes(mutate(songs[suffix], rng))
        else:
            path.write_bytes(harm(songs[suffix], songs[str(rng.choice(SUFFIXES))], rng))
        yield path


def statuses(files: Iterator[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with its status in a library's table; files are deleted afterwards."""
    with WorkerPool(functools.partial(make_predict_task, ScanOptions()), 2, TIMEOUT, MEMORY) as pool:
        for name, value in pool.map(map(str, files)):
            yield Path(name), value.status if isinstance(value, TaskFailure) else OK
            Path(name).unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for path, status in statuses(mutants(Path(folder), options.count, options.seed)):
            counts[status] += 1
            if status not in EXPECTED_STATUSES:
                print(f"{path.name} of seed {options.seed}: {status}")
    print(", ".join(f"{status}: {n}" for status, n in counts.most_common()))
    return int(not set(counts) <= EXPECTED_STATUSES)


if __name__ == "__main__":
    sys.exit(main())
