"""Robustness: does the top genre stay the same when a recording is altered in ways that keep its genre?

python benchmarks/robustness.py FOLDER [--model NAME_OR_FOLDER]

FOLDER contains audio files, such as GTZAN's genres_original. Needs the extra [dev] (librosa).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import librosa
import numpy as np
import numpy.typing as npt
import scipy.signal
import soxr
from rich.progress import track

from common import argument_parser, print_table
from musicclass import audio
from musicclass.audio_files import files
from musicclass.classifier import Classifier
from musicclass.evaluation.intervals import wilson
from musicclass.prediction import UNKNOWN, Prediction

RATE = 22_050
Floats = npt.NDArray[np.float32]
Rng = np.random.Generator
Pairs = dict[str, list[tuple[Prediction, Prediction]]]


def encode_mp3(samples: Floats, kbits: int) -> Floats:
    """Encode as mp3 and decode again."""
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono", bit_rate=kbits * 1000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    encoded.seek(0)
    return audio.load(encoded, RATE)


def add_noise(samples: Floats, rng: Rng, snr: float) -> Floats:
    """Add white noise at a signal-to-noise ratio in dB."""
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-snr / 20)
    return samples + np.float32(level) * rng.standard_normal(len(samples), dtype=np.float32)


def equalize(samples: Floats, rng: Rng) -> Floats:
    """Apply a smooth random gain over frequency: standard deviation 3 dB, at most 6 dB."""
    gains = np.clip(np.convolve(rng.standard_normal(11), [0.5, 0.7, 0.5], "valid") * 3, -6, 6)
    frequency = np.concatenate([[0.0], 2 ** (np.linspace(0, 1, 9) * 8 - 8)])
    fir = scipy.signal.firwin2(1025, frequency, 10 ** (np.concatenate([gains[:1], gains]) / 20))
    return np.float32(scipy.signal.fftconvolve(samples, fir, "same"))


def resample(samples: Floats, rate: int) -> Floats:
    """Resample to `rate` (Hz) and back."""
    return np.float32(soxr.resample(soxr.resample(samples, RATE, rate), rate, RATE))


def delay_right(samples: Floats) -> Floats:
    """Stereo whose right channel is 0.5 ms late and 3 dB lower."""
    delay = round(0.0005 * RATE)
    return np.stack([samples, 0.7 * np.concatenate([np.zeros(delay, np.float32), samples[:-delay]])], axis=1)


def clip(samples: Floats, decibels: float) -> Floats:
    """Clip so far below the peak, in dB."""
    limit = np.abs(samples).max() * np.float32(10 ** (-decibels / 20))
    return np.clip(samples, -limit, limit)


ALTERATIONS: dict[str, Callable[[Floats, Rng], Floats]] = {
    "mp3, 64 kbit/s": lambda x, rng: encode_mp3(x, 64),
    "mp3, 32 kbit/s": lambda x, rng: encode_mp3(x, 32),
    "gain +12 dB": lambda x, rng: x * np.float32(10 ** (12 / 20)),
    "gain -12 dB": lambda x, rng: x * np.float32(10 ** (-12 / 20)),
    "white noise, SNR 20 dB": lambda x, rng: add_noise(x, rng, 20),
    "white noise, SNR 10 dB": lambda x, rng: add_noise(x, rng, 10),
    "tempo +3%": lambda x, rng: librosa.effects.time_stretch(x, rate=1.03),
    "tempo -3%": lambda x, rng: librosa.effects.time_stretch(x, rate=0.97),
    "pitch +0.5 semitones": lambda x, rng: librosa.effects.pitch_shift(x, sr=RATE, n_steps=0.5),
    "pitch -0.5 semitones": lambda x, rng: librosa.effects.pitch_shift(x, sr=RATE, n_steps=-0.5),
    "random equalizer": equalize,
    "stereo, right channel late": lambda x, rng: delay_right(x),
    "offset of half of full scale": lambda x, rng: x + np.float32(0.5),
    "inverted polarity": lambda x, rng: -x,
    "stereo, right channel inverted": lambda x, rng: np.stack([x, -x], axis=1),
    "1 dB of clipping": lambda x, rng: clip(x, 1),
    "sample rate 16 kHz": lambda x, rng: resample(x, 16_000),
    "sample rate 8 kHz": lambda x, rng: resample(x, 8_000),
}


def predict_altered(names: list[str], classifier: Classifier) -> Pairs:
    """For each alteration: the predictions for each file before and after it."""
    pairs: Pairs = {name: [] for name in ALTERATIONS}
    for number, name in enumerate(track(names, "Files")):
        samples = audio.load(name, RATE)
        before = classifier.predict_waveform(samples, RATE)
        for alteration, alter in ALTERATIONS.items():
            altered = alter(samples, np.random.default_rng(number))
            pairs[alteration].append((before, classifier.predict_waveform(altered, RATE)))
    return pairs


def print_pairs(pairs: Pairs) -> None:
    rows = []
    for alteration, predictions in pairs.items():
        same, n = sum(a.top_genre == b.top_genre for a, b in predictions), len(predictions)
        low, high = wilson(same, n)
        change = np.mean([abs(a.probabilities[g] - p) for a, b in predictions for g, p in b.probabilities.items()])
        unknown = sum(b.genre == UNKNOWN for _, b in predictions)
        rows.append((alteration, f"{same} of {n}", f"{low:.0%}-{high:.0%}", f"{change:.3f}", str(unknown)))
    columns = ("alteration", "same top genre", "95% interval", "mean change of probabilities", "unknown")
    print_table("predictions for altered recordings", columns, rows)


def main() -> None:
    parser = argument_parser(__doc__, "folder")
    options = parser.parse_args()
    print_pairs(predict_altered(list(files([options.folder])), Classifier.load(options.model)))


if __name__ == "__main__":
    main()
