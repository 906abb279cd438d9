"""How long each stage of a prediction takes, beside decoding alone, on one thread.

python benchmarks/predict.py [FILE] [--repeat 5] [--model NAME_OR_FOLDER]

Without FILE: four minutes of made-up music, stereo, 44.1 kHz, as mp3.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import soundfile

from common import BLOCK_FRAMES, interleaved, print_table, within, write_music
from musicclass import audio
from musicclass.classifier import BATCH, Classifier, track_windows
from musicclass.features import log_mel

SECONDS = 240
LIMIT = 2.0  # times decoding alone that a whole prediction may take


def decode(path: Path) -> float:
    """Decode the whole file in blocks, keeping none; returns its seconds."""
    frames = 0
    with soundfile.SoundFile(path) as file:
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            frames += len(block)
        return frames / float(file.samplerate)


def make_stages(path: Path, classifier: Classifier) -> dict[str, Callable[[], Any]]:
    """Name -> what to time; the first is decoding alone, the last the whole prediction."""
    features = classifier.bundle.features
    waveform = np.concatenate(list(audio.stream_for(path, features)))
    windows = track_windows(log_mel(waveform, features), features)
    windows = windows[[bool(window.any()) for window in windows]]  # the silent ones aren't asked about
    session = classifier.bundle.session()
    name = session.get_inputs()[0].name

    def run_network() -> None:
        for start in range(0, len(windows), BATCH):
            session.run(None, {name: windows[start : start + BATCH]})

    def stream() -> None:
        for _ in audio.stream_for(path, features):
            pass

    return {
        "decoding alone, soundfile": lambda: decode(path),
        "decoding, mixing, resampling": stream,
        "log-mel, windows, MFCC": lambda: track_windows(log_mel(waveform, features), features),
        f"network, {len(windows)} windows": run_network,
        "whole prediction": lambda: classifier.predict(path),
    }


def measure(path: Path, model: str, repeat: int) -> None:
    classifier = Classifier.load(model)
    seconds, heard = decode(path), classifier.predict(path).duration
    if abs(seconds - heard) > 0.01 * seconds:
        print(f"not comparable: soundfile decodes {seconds:.1f} s of it, a prediction hears {heard:.1f} s")
    times = interleaved(make_stages(path, classifier), repeat)
    alone = next(iter(times.values()))
    ratios = {name: float(np.median(stage / alone)) for name, stage in times.items()}
    rows = []
    for name, stage in times.items():
        median = float(np.median(stage))
        rows.append((name, f"{median:.3f}", f"{seconds / median:,.0f}", f"{ratios[name]:.2f}"))
    rate = path.stat().st_size * 8 / seconds / 1000
    title = f"{path.name}, {seconds:.0f} s, {rate:.0f} kbit/s, model {classifier.bundle.name}, one thread"
    print_table(f"{title}, median of {repeat}", ("stage", "seconds", "times real time", "ratio to decoding"), rows)
    ratio = ratios["whole prediction"]
    print(f"whole prediction: {ratio:.2f} times decoding alone, {within(ratio <= LIMIT)} {LIMIT:g} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default="gtzan")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or write_music(Path(folder) / "made-up music.mp3", SECONDS, "MP3")
        measure(path, options.model, options.repeat)


if __name__ == "__main__":
    main()
