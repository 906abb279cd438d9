"""Timing, tables and synthetic music for the benchmarks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from rich.console import Console
from rich.table import Table

from musicclass.saved_model import DEFAULT_MODEL

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

WIDTH = 110  # characters of a table outside a terminal


def argument_parser(description: str | None, *arguments: str) -> argparse.ArgumentParser:
    """A parser with positional `arguments` and the option --model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_FOLDER")
    for name in arguments:
        parser.add_argument(name, metavar=name.upper())
    return parser


def time_interleaved(stages: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds (repeat,) of each stage, after one run as warm-up.

    Every repetition runs all stages, so that changes of the machine's speed affect all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for repetition in range(repeat + 1):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a titled table; the first column is text, the others are numbers."""
    table = Table(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(title, markup=False)
    console.print(table)


def write_music(path: Path, seconds: float, bitrate: int = 192) -> Path:
    """Write synthetic stereo music at 44.1 kHz, as wav or, at `bitrate` kbit/s, as mp3."""
    import make_clips

    clip = make_clips.disco(np.random.default_rng(0))
    mono = np.resize(clip, int(seconds * make_clips.RATE))
    stereo = np.stack([mono, np.roll(mono, make_clips.RATE // 100)], axis=1)
    level = 1 - (bitrate - 32 + 0.5) / (320 - 32)  # libsndfile's scale from 320 to 32 kbit/s
    options = {"compression_level": level, "bitrate_mode": "CONSTANT"} if path.suffix == ".mp3" else {}
    soundfile.write(path, stereo, make_clips.RATE, **options)
    return path
