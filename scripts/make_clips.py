"""Synthesize clips of 24 s in three styles, and a dial tone: python scripts/make_clips.py [FOLDER]

Writes classical.wav (a chorale for strings), disco.wav, metal.wav, and dialtone.wav (expected: unknown). The output is
the same each time. `gtzan` recognizes them; reggae, jazz, hip-hop and country, which were tried, too, it didn't. For
`music`, which is trained on synthesizers, disco.wav is electronic, and metal.wav unknown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 44_100  # Hz
SECONDS = 24
Floats = npt.NDArray[np.float64]
Points = dict[float, float]  # Hz: dB
Rng = np.random.Generator
WIRES: Points = {150: -20, 700: -3, 3000: 0, 9000: -6, 16000: -20}  # of a snare drum
CYMBAL: Points = {300: -40, 3000: -12, 7000: 0, 12000: -2, 18000: -12}


def times(seconds: float) -> Floats:
    return np.arange(int(seconds * RATE)) / RATE


def equalize(sound: Floats, points: Points) -> Floats:
    """Zero-phase filter, its gain interpolated between points, linearly in dB over log frequency."""
    size = 1 << (len(sound) + RATE // 10).bit_length()
    f = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 1)
    gain = np.interp(np.log(f), np.log(list(points)), list(points.values()))
    return np.asarray(np.fft.irfft(np.fft.rfft(sound, size) * 10 ** (gain / 20))[: len(sound)])


def shaped(sound: Floats, attack: float = 0.001, release: float = 0.02) -> Floats:
    """Apply an envelope of linear attack and release, in seconds."""
    t = times(len(sound) / RATE)
    return np.asarray(sound * np.minimum(1, np.minimum(t / attack, t[::-1] / release)))


def pluck(rng: Rng, midi: float, seconds: float, soft: int, damping: float) -> Floats:
    """Plucked string (Karplus-Strong), a period at a time; the excitation is noise, smoothed `soft` times."""
    string = rng.uniform(-1, 1, round(RATE / (440 * 2 ** ((midi - 69) / 12))))
    for _ in range(soft):
        string = (string + np.roll(string, 1)) / 2
    periods = [string - string.mean()]
    for _ in range(int(seconds * RATE) // len(string)):
        periods.append(damping / 2 * (periods[-1] + np.roll(periods[-1], 1)))
    sound = np.concatenate(periods)[: int(seconds * RATE)]
    return shaped(sound / np.abs(sound).max(), 0.002, 0.03)


def bowed(rng: Rng, midi: float, seconds: float, players: int, attack: float) -> Floats:
    """String section: sawtooths (differentiated parabolas) with vibrato, none quite in tune, and bow noise."""
    t = times(seconds)
    sound = 0.15 * rng.standard_normal(len(t))
    for _ in range(players):
        vibrato = rng.uniform(0.05, 0.18) * np.sin(2 * np.pi * (rng.uniform(4.8, 6) * t + rng.random()))
        f = 440 * 2 ** ((midi - 69 + rng.normal(0, 0.06) + vibrato) / 12)
        parabola = (2 * (np.cumsum(f) / RATE % 1) - 1) ** 2
        sound += np.diff(parabola, prepend=parabola[0]) * RATE / (4 * f)
    return shaped(sound / players**0.5 * (0.75 + 0.25 * np.sin(np.pi * t / seconds)), attack, 0.2)


def kick(rng: Rng, click: float, seconds: float) -> Floats:
    """Bass drum: a sine that falls to 55 Hz, and the click of the beater."""
    t = times(seconds)
    body = np.sin(2 * np.pi * (55 * t + 3 * (1 - np.exp(-t * 35)))) * np.exp(-t * 2.5 / seconds)
    return shaped(body + click * rng.standard_normal(len(t)) * np.exp(-t * 250))


def burst(rng: Rng, seconds: float, decay: float, points: Points) -> Floats:
    """Filtered noise that decays, at `decay` per second."""
    noise = equalize(rng.standard_normal(int(seconds * RATE)), points)
    return shaped(noise / noise.std() * np.exp(-times(seconds) * decay))


def snare(rng: Rng) -> Floats:
    """Snare drum: two modes of the skin, and the rattle of the wires."""
    t = times(0.3)
    skin = (np.sin(2 * np.pi * 185 * t) + 0.6 * np.sin(2 * np.pi * 296 * t)) * np.exp(-t * 22)
    return 0.7 * skin + 0.35 * burst(rng, 0.3, 16, WIRES)


def add(rng: Rng, track: Floats, at: float, sound: Floats, gain: float = 1.0) -> None:
    """Mix a sound into a track at a time in seconds, with human timing."""
    start = max(0, int((at + rng.normal(0, 0.004)) * RATE))
    track[start : start + len(sound)] += gain * rng.uniform(0.85, 1.1) * sound[: max(0, len(track) - start)]


def balanced(*parts: tuple[float, Floats]) -> Floats:
    """Mix of parts, each brought to a level (RMS)."""
    return np.asarray(sum(level * samples / samples.std() for level, samples in parts))


def reverb(rng: Rng, dry: Floats, seconds: float, wet: float) -> Floats:
    """Convolve with decaying noise: early reflections, and a tail (RT60: `seconds`) with less treble."""
    t = times(seconds)
    tail = equalize(rng.standard_normal(len(t)), {100: -3, 400: 0, 3000: -9, 10000: -30}) * np.exp(-6.9 * t / seconds)
    early = equalize(rng.standard_normal(len(t)), {200: -6, 6000: -3, 15000: -20}) * np.exp(-30 * t / seconds)
    response = (tail + early) / np.sqrt(((tail + early) ** 2).sum())
    size = 1 << (len(dry) + len(t)).bit_length()
    return dry + wet * np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size))[: len(dry)]


def to_tape(rng: Rng, mix: Floats, drive: float, hiss: float) -> Floats:
    """Saturation, rumble and hiss (in dB relative to the mix), fades and level."""
    mix = equalize(np.tanh(drive * mix / mix.std()), {20: -20, 60: 0})
    noise = equalize(rng.standard_normal(len(mix)), {20: 10, 100: 0, 10000: -20, 20000: -23})
    mix = shaped(balanced((1, mix), (10 ** (hiss / 20), noise)), 0.01, 0.5)
    return np.asarray(0.85 * mix / np.abs(mix).max())


def classical(rng: Rng) -> Floats:
    """Chorale for strings in D minor, in a hall."""
    strings = np.zeros(SECONDS * RATE)
    voices = (
        (50, 49, 50, 43, 45, 46, 43, 45, 41, 48, 46, 45, 43, 45, 38),
        (57, 57, 57, 58, 57, 58, 58, 57, 57, 55, 58, 57, 55, 57, 57),
        (65, 64, 65, 67, 67, 65, 64, 64, 60, 64, 62, 61, 62, 61, 62),
        (74, 76, 77, 74, 73, 74, 70, 69, 72, 72, 70, 69, 70, 64, 65),
    )
    for voice in voices:
        for i, midi in enumerate(voice):
            add(rng, strings, i * 1.5, bowed(rng, midi, 2.4 if i == len(voice) - 1 else 1.65, 4, 0.12))
    body = equalize(strings, {60: -9, 200: 0, 500: 0, 1000: -4, 2500: -10, 5000: -22, 10000: -40})
    return to_tape(rng, reverb(rng, body, 2.2, 0.9), 0.15, -50)


def disco(rng: Rng) -> Floats:
    """Four on the floor at 120 bpm: off-beat open hi-hats, bass in octaves, muted guitar and high strings."""
    (bass, drums, strings, guitar), beat = np.zeros((4, SECONDS * RATE)), 0.5
    for i in range(int(SECONDS / beat)):
        at, (root, third) = i * beat, ((33, 3), (33, 3), (38, 3), (31, 4))[i // 4 % 4]  # Am, Am, Dm, G
        add(rng, drums, at, kick(rng, 0.4, 0.25), 1.2)
        if i % 2:
            add(rng, drums, at, snare(rng))
        for k in range(4):
            decay, gain = (10, 0.27) if k == 2 else (50, 0.12)
            add(rng, drums, at + k * beat / 4, burst(rng, 0.25, decay, CYMBAL), gain)
            for interval in (third, 7):
                add(rng, guitar, at + k * beat / 4, pluck(rng, root + 36 + interval, 0.1, 1, 0.98))
        for k in range(2):
            add(rng, bass, at + k * beat / 2, pluck(rng, root + 12 * k, beat / 2, 5, 0.995))
        for interval in (0, third, 7, 12 + third) if i % 4 == 0 else ():
            add(rng, strings, at, bowed(rng, root + 36 + interval, 4 * beat, 3, 0.06))
    mix = balanced((1, bass), (1.2, drums), (0.6, strings), (0.5, guitar))
    return to_tape(rng, reverb(rng, mix, 0.8, 0.25), 0.5, -40)


def metal(rng: Rng) -> Floats:
    """Power chords at 150 bpm, palm-muted on the low E, through distortion and a cabinet, over double bass drum."""
    (guitar, bass, drums), step = np.zeros((3, SECONDS * RATE)), 60 / 150 / 4
    for i in range(int(SECONDS / step)):
        at, root = i * step, (40, 40, 40, 43, 40, 40, 46, 45, 40, 40, 40, 43, 40, 47, 46, 43)[i // 2 % 16]
        ringing, damping = (0.9, 0.96) if root == 40 else (2.2, 0.99)
        if root == 40 or i % 2 == 0:
            for interval in (0, 7, 12):
                add(rng, guitar, at, pluck(rng, root + interval, ringing * step, 2, damping))
            add(rng, bass, at, pluck(rng, root - 12, ringing * step, 6, 0.99))
        add(rng, drums, at, kick(rng, 0.8, 0.12), 0.8)
        if i % 4 == 0:
            add(rng, drums, at, burst(rng, 1.2, 3, CYMBAL), 0.36)
        if i % 8 == 4:
            add(rng, drums, at, snare(rng), 1.5)
    driven = equalize(guitar, {80: -12, 700: 0, 3000: -3, 8000: -20})
    cabinet: Points = {60: -20, 110: 0, 400: -5, 2500: 0, 4500: -3, 7000: -25, 15000: -50}
    mix = balanced((1, equalize(np.tanh(12 * driven / driven.std()), cabinet)), (0.6, bass), (1.2, drums))
    return to_tape(rng, reverb(rng, mix, 0.6, 0.25), 0.6, -45)


def dialtone(rng: Rng) -> Floats:
    """350 and 440 Hz, and the noise of the line."""
    return to_tape(rng, balanced(*((1, np.sin(2 * np.pi * f * times(SECONDS))) for f in (350, 440))), 0.15, -50)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    for style in (classical, disco, metal, dialtone):
        soundfile.write(folder / f"{style.__name__}.wav", style(np.random.default_rng(0)), RATE)


if __name__ == "__main__":
    main()
