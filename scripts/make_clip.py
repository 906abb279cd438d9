"""Write a 24 s clip of made-up music as a wav file: python scripts/make_clip.py OUT.wav

Twelve seconds of a drum machine with a bass line, then twelve of slow chords, so that a time line has
something to show. It is for trying things out: no model was trained on music like it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 44_100  # Hz
BEAT = 0.5  # seconds
Floats = npt.NDArray[np.float64]


def note(midi: float, seconds: float, decay: float, partials: int = 6) -> Floats:
    """A plucked tone: partials that fade, the higher the sooner."""
    t = np.arange(int(seconds * RATE)) / RATE
    f = 440 * 2 ** ((midi - 69) / 12)
    tone = sum(np.sin(2 * np.pi * f * k * t) * np.exp(-t * decay * k) / k for k in range(1, partials + 1))
    return np.asarray(tone * np.minimum(1, t * 200))


def groove(rng: np.random.Generator) -> Floats:
    """Kick on every beat, snare on every other, hi-hats between, and a bass line in A minor."""
    track = np.zeros(int(24 * BEAT * RATE))
    t = np.arange(int(0.2 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (45 * t + 60 * (1 - np.exp(-t * 30)) / 30)) * np.exp(-t * 14)
    hat = np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * 60) * 0.25
    snare = rng.standard_normal(len(t)) * np.exp(-t * 22) * 0.5
    for beat in range(24):
        start = int(beat * BEAT * RATE)
        track[start : start + len(t)] += kick + (snare if beat % 2 else 0)
        half = start + int(BEAT / 2 * RATE)
        track[half : half + len(t)] += hat
        bass = note((33, 33, 36, 31)[beat // 4 % 4] + 12 * (beat % 3 == 2), BEAT, 3)
        track[start : start + len(bass)] += 0.5 * bass
    return track


def chords() -> Floats:
    """Four slow chords."""
    track = np.zeros(int(24 * BEAT * RATE))
    for i, root in enumerate((57, 53, 60, 55)):
        start = int(i * 6 * BEAT * RATE)
        for interval in (0, 4, 7, 12, 16):
            tone = note(root + interval - (interval == 4 and root == 57), 6 * BEAT, 0.6)
            track[start : start + len(tone)] += 0.2 * tone
    return track


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    clip = np.concatenate([groove(np.random.default_rng(0)), chords()])
    soundfile.write(Path(sys.argv[1]), 0.5 * clip / np.abs(clip).max(), RATE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
