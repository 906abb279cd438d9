"""Files as nobody would make them on purpose, and what comes of them: python -m tests.bad_input [COUNT] [SEED].

Mutants are made of short songs in eight formats: flipped and inserted bytes, cuts, bytes moved. Each is heard by a
worker; the program ends with 1 when one of them crashed a worker, or took too long or too much memory.
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
import soundfile

from musicclass.library.run import OK, STATUS, make_listener
from musicclass.library.workers import Failure, Pool
from musicclass.printing import progress_bar
from tests.conftest import make_music
from tests.test_audio import encode

TIMEOUT, MEMORY = 20.0, 1e9  # seconds, bytes
NAMED = {OK, *STATUS.values()}


def make_songs(folder: Path) -> dict[str, Path]:
    """Three seconds of music in eight formats."""
    music, songs = make_music(3, 44_100), {}
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        songs[ending] = folder / f"song.{ending}"
        soundfile.write(songs[ending], music, 44_100)
    for ending, codec in (("m4a", "aac"), ("wma", "wmav2"), ("opus", "libopus")):
        rate = 48_000 if ending == "opus" else 44_100
        songs[ending] = encode(folder / f"song.{ending}", make_music(3, rate), rate, codec)
    return songs


def mutant(original: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy; more often in the first bytes, where headers are."""
    data = bytearray(original)
    for _ in range(int(rng.integers(1, 6))):
        head = rng.random() < 0.6
        place = int(rng.integers(min(len(data), 512) if head else len(data)))
        kind = rng.integers(6)
        if kind < 3:
            for at in rng.integers(place, min(len(data), place + 64) + 1, int(rng.integers(1, 9))):
                data[min(at, len(data) - 1)] = rng.integers(256)
        elif kind == 3:  # a length or a count, as large or small as it gets
            data[place : place + 4] = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")[int(rng.integers(3))]
        elif kind == 4:
            data[place:place] = rng.bytes(int(rng.integers(1, 600)))
        else:
            del data[place : place + int(rng.integers(1, 600))]
        if len(data) < 16:
            break
    return bytes(data)


def outcomes(files: Iterator[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with its status, heard as the library hears it; files are deleted when they are done."""
    with Pool(functools.partial(make_listener, "gtzan"), 2, TIMEOUT, MEMORY) as pool:
        for name, value in pool.map(map(str, files)):
            yield Path(name), value.status if isinstance(value, Failure) else OK
            Path(name).unlink()


def mutants(folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Damaged songs, the same for the same seed."""
    songs = {ending: path.read_bytes() for ending, path in make_songs(folder).items()}
    for number in range(count):
        ending = list(songs)[number % len(songs)]
        path = folder / f"mutant {number}.{ending}"
        path.write_bytes(mutant(songs[ending], np.random.default_rng([seed, number])))
        yield path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    options = parser.parse_args()
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, progress_bar() as bar:
        task = bar.add_task("Mutants", total=options.count)
        for path, status in outcomes(mutants(Path(name), options.count, options.seed)):
            told[status] += 1
            bar.advance(task)
            if status not in NAMED:
                print(f"{path.name} of seed {options.seed}: {status}")
    print(", ".join(f"{status}: {n}" for status, n in told.most_common()))
    return int(not set(told) <= NAMED)


if __name__ == "__main__":
    sys.exit(main())
