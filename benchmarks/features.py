"""Our log-mel and MFCC beside librosa's, in the same run, on one thread.

python benchmarks/features.py [--repeat 5]

Both make the same of 240 s of noise: dB above a floor 80 dB below its maximum, and 40 MFCCs of that.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import librosa
import numpy as np

from common import interleaved, print_table
from musicclass.config import FeatureConfig
from musicclass.features import Array, log_mel, mfcc, scale_window

SECONDS = 240
CONFIG = FeatureConfig(
    hop_length=512, n_bands=128, n_mfcc=40, window_seconds=SECONDS, scale_seconds=SECONDS
)  # one window over all of it, as librosa has no others


def ours(waveform: Array) -> tuple[Array, Array]:
    """Log-mel (n_frames, n_bands) in dB above the floor, MFCC (n_frames, n_mfcc)."""
    frames = scale_window(log_mel(waveform, CONFIG), 0, CONFIG)
    return frames, mfcc(frames, CONFIG.n_mfcc)


def theirs(waveform: Array) -> tuple[Array, Array]:
    """The same, of librosa."""
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=CONFIG.sample_rate,
        n_fft=CONFIG.n_fft,
        hop_length=CONFIG.hop_length,
        n_mels=CONFIG.n_mels,
        fmin=CONFIG.fmin,
        fmax=CONFIG.fmax,
    )
    frames = librosa.power_to_db(mel, ref=np.max, top_db=CONFIG.top_db) + CONFIG.top_db
    return frames.T, librosa.feature.mfcc(S=frames, n_mfcc=CONFIG.n_mfcc, dct_type=2, norm="ortho").T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.standard_normal(SECONDS * CONFIG.sample_rate, dtype=np.float32)

    times = interleaved({"musicclass": lambda: ours(waveform), "librosa": lambda: theirs(waveform)}, repeat)
    rows = []
    for name, seconds in times.items():
        median = float(np.median(seconds))
        ratio = float(np.median(times["librosa"] / seconds))
        rows.append((name, f"{median:.3f}", f"{SECONDS / median:,.0f}", f"{ratio:.2f}"))
    title = f"log-mel and {CONFIG.n_mfcc} MFCCs, {SECONDS} s of noise, one thread, median of {repeat}"
    print_table(title, ("", "seconds", "times real time", "times as fast as librosa"), rows)

    (our_mel, our_mfcc), (their_mel, their_mfcc) = ours(waveform), theirs(waveform)
    print(f"largest difference of log-mel cells: {np.abs(our_mel - their_mel).max():.2g} dB")
    print(f"largest difference of MFCCs: {np.abs(our_mfcc - their_mfcc).max():.2g}")


if __name__ == "__main__":
    main()
