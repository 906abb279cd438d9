"""Whether answers stay the same when a recording is altered in ways that leave its genre as it is.

python benchmarks/robustness.py FOLDER [--model NAME_OR_FOLDER] [--plot robustness.png]

FOLDER holds audio files, at any depth (such as GTZAN's genres_original); needs the extra [dev] (librosa).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import av
import librosa
import numpy as np
import numpy.typing as npt
import scipy.signal
import soxr
from rich.progress import track

from common import print_table
from musicclass import audio, plots
from musicclass.classifier import Classifier
from musicclass.prediction import Prediction
from musicclass.training.metrics import wilson
from musicclass.walk import files

RATE = 22_050
WANTED = 0.95
Floats = npt.NDArray[np.float32]
Change = Callable[[Floats, np.random.Generator], Floats]


def mp3(samples: Floats, kbits: int) -> Floats:
    """Through an encoder and back."""
    packed = io.BytesIO()
    with av.open(packed, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono", bit_rate=kbits * 1000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    packed.seek(0)
    return audio.load(packed, RATE)


def noisy(samples: Floats, rng: np.random.Generator, decibels: float) -> Floats:
    """With white noise so far below the signal's power."""
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-decibels / 20)
    return samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)


def equalised(samples: Floats, rng: np.random.Generator) -> Floats:
    """By a smooth random curve over octaves, deviation 3 dB, at most 6 dB."""
    octaves = np.linspace(0, 1, 9)
    gains = np.clip(np.convolve(rng.standard_normal(11), [0.5, 0.7, 0.5], "valid") * 3, -6, 6)
    frequency = np.concatenate([[0.0], 2 ** (octaves * 8 - 8)])
    curve = scipy.signal.firwin2(1025, frequency, 10 ** (np.concatenate([gains[:1], gains]) / 20))
    return np.float32(scipy.signal.fftconvolve(samples, curve, "same"))


def band_limited(samples: Floats, rate: int) -> Floats:
    """As if it had been recorded at `rate` (Hz), so with nothing above half of it."""
    return np.float32(soxr.resample(soxr.resample(samples, RATE, rate), rate, RATE))


def delayed_side(samples: Floats) -> Floats:
    """Stereo: one side 0.5 ms late and 3 dB lower."""
    late = round(0.0005 * RATE)
    return np.stack([samples, 0.7 * np.concatenate([np.zeros(late, np.float32), samples[:-late]])], axis=1)


CHANGES: dict[str, Change] = {
    "mp3, 64 kbit/s": lambda x, rng: mp3(x, 64),
    "12 dB louder": lambda x, rng: x * np.float32(10 ** (12 / 20)),
    "12 dB softer": lambda x, rng: x * np.float32(10 ** (-12 / 20)),
    "white noise at 20 dB": lambda x, rng: noisy(x, rng, 20),
    "3% faster": lambda x, rng: librosa.effects.time_stretch(x, rate=1.03),
    "3% slower": lambda x, rng: librosa.effects.time_stretch(x, rate=0.97),
    "half a semitone up": lambda x, rng: librosa.effects.pitch_shift(x, sr=RATE, n_steps=0.5),
    "half a semitone down": lambda x, rng: librosa.effects.pitch_shift(x, sr=RATE, n_steps=-0.5),
    "random gentle equaliser": equalised,
    "stereo, both sides alike": lambda x, rng: np.stack([x, x], axis=1),
    "stereo, one side late": lambda x, rng: delayed_side(x),
}
REPORTED: dict[str, Change] = {  # no limit is set for these
    "recorded at 16 kHz": lambda x, rng: band_limited(x, 16_000),
    "recorded at 8 kHz": lambda x, rng: band_limited(x, 8_000),
    "mp3, 32 kbit/s": lambda x, rng: mp3(x, 32),
    "white noise at 10 dB": lambda x, rng: noisy(x, rng, 10),
}


def compare(names: list[str], classifier: Classifier) -> dict[str, list[tuple[Prediction, Prediction]]]:
    """Change -> for each file, the answers before and after."""
    pairs: dict[str, list[tuple[Prediction, Prediction]]] = {name: [] for name in CHANGES | REPORTED}
    for number, name in enumerate(track(names, "Files")):
        samples = audio.load(name, RATE)
        before = classifier.predict_waveform(samples, RATE)
        for change, alter in (CHANGES | REPORTED).items():
            altered = alter(samples, np.random.default_rng(number))
            pairs[change].append((before, classifier.predict_waveform(altered, RATE)))
    return pairs


def print_pairs(pairs: dict[str, list[tuple[Prediction, Prediction]]]) -> None:
    rows = []
    for change, answers in pairs.items():
        same = sum(a.best_guess == b.best_guess for a, b in answers)
        low, high = wilson(same, len(answers))
        moved = np.mean([abs(a.probabilities[g] - b.probabilities[g]) for a, b in answers for g in a.probabilities])
        unknown = sum(b.genre == "unknown" for _, b in answers)
        limit = "" if change in REPORTED else "yes" if same >= WANTED * len(answers) else "NO"
        share = f"{same / len(answers):.1%}"
        rows.append(
            (change, f"{same} of {len(answers)}", share, f"{low:.0%}-{high:.0%}", f"{moved:.3f}", str(unknown), limit)
        )
    columns = ("change", "same best guess", "", "95% interval", "moved", "unknown", f">= {WANTED:.0%}")
    print_table("answers to altered recordings", columns, rows)
    print("moved: mean absolute difference of a probability")


def draw(pairs: dict[str, list[tuple[Prediction, Prediction]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    names = list(pairs)[::-1]
    shares = [np.mean([a.best_guess == b.best_guess for a, b in pairs[name]]) for name in names]
    spans = [wilson(sum(a.best_guess == b.best_guess for a, b in pairs[name]), len(pairs[name])) for name in names]
    reach = np.array([(s - low, high - s) for s, (low, high) in zip(shares, spans, strict=True)]).clip(0).T
    colours = [plots.SILENT if name in REPORTED else plots.COLOURS[0] for name in names]
    axis.barh(names, shares, xerr=reach, color=colours, ecolor="#555555", capsize=3)
    axis.axvline(WANTED, color=plots.COLOURS[3], linestyle=":", label=f"wanted: {WANTED:.0%}")
    axis.set(xlim=(0.5, 1), xlabel="share of recordings with the same best guess (bars: 95% intervals)")
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    plots.save(figure, path)
    print(f"{path} written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--model", default="gtzan")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    pairs = compare(list(files([options.folder])), Classifier.load(options.model))
    print_pairs(pairs)
    if options.plot:
        draw(pairs, options.plot)


if __name__ == "__main__":
    main()
