"""What the benchmarks share: stages timed in turn, made-up music, and a table."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from rich.console import Console
from rich.table import Table

BLOCK_FRAMES = 65_536
MAKE_CLIP = Path(__file__).parents[1] / "scripts" / "make_clip.py"
WIDTH = 110  # characters of a table where nobody looks at it in a terminal


def interleaved(stages: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds that each stage takes, (repeat,), after one run that doesn't count.

    Every repeat runs all stages, so that a machine that slows down slows them all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeat + 1):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A titled table on stdout; the first column is text, the others are numbers."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
    console.print(title, markup=False)
    console.print(table)


def within(holds: bool) -> str:
    return "within" if holds else "NOT within"


def write_music(path: Path, seconds: float, format: str, bitrate: int = 192) -> Path:
    """Stereo made-up music at 44.1 kHz, as `format` ("WAV", or "MP3" at `bitrate` kbit/s): the demo's clip."""
    maker = _make_clip()
    clip = np.concatenate([maker.groove(np.random.default_rng(0)), maker.chords()])
    clip = np.tile(0.5 * clip / np.abs(clip).max(), int(np.ceil(seconds * maker.RATE / len(clip))))
    stereo = np.stack([clip, np.roll(clip, maker.RATE // 100)], axis=1)[: int(seconds * maker.RATE)]
    level = 1 - (bitrate - 32 + 0.5) / (320 - 32)  # libsndfile's scale, from 320 down to 32 kbit/s
    quality = {"compression_level": max(0, level), "bitrate_mode": "CONSTANT"} if format == "MP3" else {}
    with soundfile.SoundFile(path, "w", maker.RATE, 2, format=format, **quality) as file:
        for start in range(0, len(stereo), BLOCK_FRAMES):
            file.write(stereo[start : start + BLOCK_FRAMES])
    return path


def _make_clip() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_clip", MAKE_CLIP)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
