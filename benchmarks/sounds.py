"""Synthetic sounds other than music: speech (needs espeak-ng), noise, tones and hum, percussion, applause.

Each is a function of a seed; mono at RATE Hz, within [-1, 1].
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile

RATE = 22_050
SECONDS = 20.0
N = int(RATE * SECONDS)
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

SLOPES = {"white": 0.0, "pink": -1.0, "brown": -2.0, "blue": 1.0, "violet": 2.0}  # of power, against frequency
VOICES = (
    "en-gb", "en-us", "en-gb-scotland", "en-029", "de", "fr", "es", "it", "nl", "pl", "pt", "sv",
    "en-us+f2", "en-gb+f4", "en-us+m3", "de+f3", "fr+f1", "en-gb+croak", "en-us+whisper", "it+m7",
)  # fmt: skip
TEXTS = {  # by language: a programme, instructions, a conversation, verses; in others than English one each
    "en": (
        "Good evening, and welcome to the programme. Tonight we follow a river from the hills to the sea. "
        "In the north it stays dry, with a light wind from the west, and by the weekend it should be warm.",
        "Take two cups of flour, a pinch of salt, and as much water as the dough will hold. The first train leaves at "
        "seven minutes past six. Platform 4, 12, 19 and 26. If you would like to speak to someone, press three.",
        "Have you seen the key? No! Not since Thursday. Well, who had it last? The gardener, but he would not say "
        "where he had been. Oh. Really? Yes, really. Then we should ask him again, should we not?",
        "The fog came in, the boats stayed home, the bells rang low and slow; and nobody knew, when the morning grew, "
        "which way the wind would blow, would blow, which way the wind would blow.",
    ),
    "de": ("Guten Abend. Der erste Zug fährt um sieben Uhr ab, und im Norden bleibt es bis zum Wochenende trocken.",),
    "fr": ("Bonsoir et bienvenue. Le premier train part à six heures, et le vent souffle doucement sur la rivière.",),
    "es": ("Buenas noches y bienvenidos. El primer tren sale a las seis, y en el norte no lloverá hasta el domingo.",),
    "it": ("Buonasera e benvenuti. Il primo treno parte alle sei, e domani al nord il cielo resterà sereno.",),
    "nl": ("Goedenavond en welkom. De eerste trein vertrekt om zes uur, en in het noorden blijft het droog.",),
    "pl": ("Dobry wieczór. Pierwszy pociąg odjeżdża o szóstej, a na północy do niedzieli nie będzie padać.",),
    "pt": ("Boa noite e bem-vindos. O primeiro comboio parte às seis, e no norte não chove até domingo.",),
    "sv": ("God kväll och välkomna. Det första tåget går klockan sex, och i norr blir det torrt hela veckan.",),
}


def speech(seed: int) -> Floats:
    """A synthetic voice, or two in turn, with random speed and pitch; some with reverberation, some with noise."""
    rng = np.random.default_rng(seed)
    voice = VOICES[seed % len(VOICES)]
    texts = TEXTS[voice[:2]]
    text = texts[seed // len(VOICES) % len(texts)]
    voices = (voice, f"{voice[:2]}+f3") if seed % 4 == 3 else (voice,)
    turns = [_say(voice, text, rng) for voice in voices]
    voiced = np.resize(np.concatenate(turns), N)
    if seed % 3 == 1:
        room = rng.standard_normal(RATE // 3) * np.exp(-np.arange(RATE // 3) / (RATE * 0.06))
        room[0] = 8
        voiced = scipy.signal.fftconvolve(voiced, room)[:N]
    voiced = voiced / np.abs(voiced).max()
    return _level(voiced + (seed % 2) * 0.003 * rng.standard_normal(len(voiced)))


def _say(voice: str, text: str, rng: Rng) -> Floats:
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(rng.integers(130, 200)), "-p", str(rng.integers(25, 75))]
    result = subprocess.run([*command, text], capture_output=True, check=True)
    samples, rate = soundfile.read(io.BytesIO(result.stdout))
    return np.asarray(scipy.signal.resample_poly(samples, RATE, rate))


def noise(seed: int) -> Floats:
    """Noise with a power-law spectrum; some amplitude-modulated, some band-passed."""
    rng = np.random.default_rng(seed)
    slope = list(SLOPES.values())[seed % len(SLOPES)]
    spectrum = np.fft.rfft(rng.standard_normal(N))
    frequency = np.maximum(np.fft.rfftfreq(N, 1 / RATE), 20)
    hiss = np.fft.irfft(spectrum * frequency ** (slope / 2), N)
    if seed // 5 % 3 == 1:
        hiss *= 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * np.arange(N) / RATE)
    if seed // 5 % 3 == 2:
        hiss = _band_pass(hiss, rng.uniform(100, 3000), 3)
    return _level(hiss)


def tone(seed: int) -> Floats:
    """A sine, sawtooth, square, sweep, mains hum, DTMF keys or two beating tones; some with weak noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(N) / RATE
    f = float(np.exp(rng.uniform(np.log(60), np.log(4000))))
    kinds: tuple[Callable[[], Floats], ...] = (
        lambda: np.sin(2 * np.pi * f * t),
        lambda: scipy.signal.sawtooth(2 * np.pi * f * t),
        lambda: scipy.signal.square(2 * np.pi * f * t),
        lambda: scipy.signal.chirp(t, f, SECONDS, min(9000, f * rng.uniform(2, 8)), method="logarithmic"),
        lambda: _hum(t, 50 if seed % 2 else 60, rng),
        lambda: _keys(t, rng),
        lambda: np.sin(2 * np.pi * f * t) + np.sin(2 * np.pi * (f + rng.uniform(0.5, 8)) * t),
    )
    return _level(kinds[seed % len(kinds)]() + rng.choice([0, 1e-3, 1e-2]) * rng.standard_normal(N))


def _hum(t: Floats, mains: int, rng: Rng) -> Floats:
    return np.asarray(sum(rng.uniform(0, 1) / k * np.sin(2 * np.pi * mains * k * t + k) for k in range(1, 20)))


def _keys(t: Floats, rng: Rng) -> Floats:
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477)
    pressed = (t * 4).astype(int)
    low = rng.choice(rows, pressed.max() + 1)[pressed]
    high = rng.choice(columns, pressed.max() + 1)[pressed]
    return np.asarray((np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t)) * (t * 4 % 1 < 0.5))


def percussion(seed: int) -> Floats:
    """A drum loop of one or two bars at a random tempo."""
    rng = np.random.default_rng(seed)
    beat = 60 / rng.uniform(70, 170)
    steps = int(rng.choice([8, 12, 16, 32]))
    loop = np.zeros(int(steps * beat / 4 * RATE) + RATE)
    for _ in range(int(rng.integers(2, 6))):
        hit = _drum(rng)
        for step in np.flatnonzero(rng.random(steps) < rng.uniform(0.1, 0.6)):
            start = int(step * beat / 4 * RATE)
            loop[start : start + len(hit)] += hit * rng.uniform(0.5, 1)
    length = int(steps * beat / 4 * RATE)
    loop[: len(loop) - length] += loop[length:]
    return _level(np.tile(loop[:length], int(np.ceil(N / length)))[:N] + 1e-4 * rng.standard_normal(N))


def _drum(rng: Rng) -> Floats:
    t = np.arange(int(0.4 * RATE)) / RATE
    low, decay = rng.uniform(45, 400), rng.uniform(8, 60)
    skin = np.sin(2 * np.pi * (low * t + low * (1 - np.exp(-t * 40)) / 40)) * np.exp(-t * decay)
    order = int(rng.integers(0, 2))
    rattle = np.diff(rng.standard_normal(len(t) + order), n=order) * np.exp(-t * decay * rng.uniform(0.5, 2))
    share = rng.choice([0.0, 0.2, 0.6, 1.0])
    return np.asarray((1 - share) * skin + 0.6 * share * rattle)


def applause(seed: int) -> Floats:
    """300 to 20,000 claps, each a short burst of filtered noise."""
    rng = np.random.default_rng(seed)
    claps = np.zeros(N)
    at = rng.integers(0, N, int(np.exp(rng.uniform(np.log(300), np.log(20_000)))))
    np.add.at(claps, at, rng.uniform(0.2, 1, len(at)))
    t = np.arange(int(0.02 * RATE)) / RATE
    low = rng.uniform(500, 1200)
    burst = _band_pass(rng.standard_normal(len(t)), low, 2.5) * np.exp(-t * 250)
    return _level(scipy.signal.fftconvolve(claps, burst)[:N])


def _band_pass(samples: Floats, low: float, ratio: float) -> Floats:
    """Pass from `low` (Hz) to `ratio` times that."""
    return scipy.signal.sosfilt(scipy.signal.butter(2, (low, ratio * low), "band", fs=RATE, output="sos"), samples)


def _level(samples: Floats) -> Floats:
    return np.asarray(0.5 * samples / np.abs(samples).max())


KINDS: dict[str, Callable[[int], Floats]] = {
    "speech": speech, "noise": noise, "tones and hum": tone, "percussion": percussion, "applause": applause,
}  # fmt: skip


def synthesize(kind: str, count: int) -> Iterator[Floats]:
    """`count` different sounds of a kind; no speech without espeak-ng."""
    if kind != "speech" or shutil.which("espeak-ng"):
        yield from map(KINDS[kind], range(count))
