"""Synthetic sounds, and fixtures that several test files share."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, tests that run side by side wait for each other
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import pytest
import soundfile
import soxr

from musicclass.classifier import Classifier
from musicclass.features import Array

hypothesis.settings.register_profile("no deadline", deadline=None)  # CI machines may be busy
hypothesis.settings.load_profile("no deadline")

# Module -> what imports it; where it isn't installed, tests that import that aren't collected.
OPTIONAL = {
    "beets": "beets|beetsplug", "keras": "keras|musicclass.training", "librosa": "librosa",
    "marionette_driver": "marionette_driver", "onnx": "onnx", "playwright": "playwright|tests.pages",
    "schemathesis": "schemathesis", "scipy": "scipy", "sklearn": "sklearn|musicclass.evaluation",
}  # fmt: skip
MISSING = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
RATE = 22_050
MUSIC_RATE, BEAT = 44_100, 0.5  # Hz, seconds


def pytest_report_header() -> str:
    """What the run leaves to an environment with all extras."""
    return f"tests that import {', '.join(MISSING)} are not collected: not installed" if MISSING else ""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Skip a file of tests whose imports are missing."""
    if not MISSING or collection_path.suffix != ".py":
        return None
    modules = "|".join(OPTIONAL[name] for name in MISSING)
    imports = re.search(rf"^(?:from|import) (?:{modules})\b", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    return True if imports else None


def script(name: str) -> ModuleType:
    """A program of the project, such as scripts/make_clips.py, as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_music(seconds: float = 24.0, rate: int = RATE) -> Array:
    """12 s of drums and bass, then 12 s of chords, mono at `rate`; repeated for longer clips."""
    return np.resize(_music(rate), int(seconds * rate))


def make_noise(seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> Array:
    """White noise at -20 dBFS."""
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate)).astype(np.float32)


def make_tone(frequency: float, seconds: float = 3.0, rate: int = RATE) -> Array:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@functools.cache
def _music(rate: int) -> Array:
    whole = np.concatenate([_groove(), _chords()]).astype(np.float32)
    return soxr.resample(0.5 * whole / np.abs(whole).max(), MUSIC_RATE, rate).astype(np.float32)


def _notes(midi: Sequence[float], seconds: float, decay: float) -> np.ndarray:
    """Decaying notes (n_notes, n_samples)."""
    t = np.arange(int(seconds * MUSIC_RATE)) / MUSIC_RATE
    f = 440 * 2 ** ((np.array(midi)[:, None] - 69) / 12)
    return sum(np.sin(2 * np.pi * f * k * t) * np.exp(-t * decay * k) / k for k in range(1, 7)) * np.minimum(1, t * 200)


def _groove() -> np.ndarray:
    rng, t = np.random.default_rng(0), np.arange(int(0.2 * MUSIC_RATE)) / MUSIC_RATE
    kick = np.sin(2 * np.pi * (45 * t + 60 * (1 - np.exp(-t * 30)) / 30)) * np.exp(-t * 14)
    hat = np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * 60) * 0.25
    snare = rng.standard_normal(len(t)) * np.exp(-t * 22) * 0.5
    bass = [(33, 33, 36, 31)[beat // 4 % 4] + 12 * (beat % 3 == 2) for beat in range(24)]
    beats, half = 0.5 * _notes(bass, BEAT, 3), int(BEAT / 2 * MUSIC_RATE)
    beats[:, : len(t)] += kick
    beats[1::2, : len(t)] += snare
    beats[:, half : half + len(t)] += hat
    return beats.ravel()


def _chords() -> np.ndarray:
    voices = ((57, 53, 60, 55), (60, 57, 64, 59), (64, 60, 67, 62), (69, 65, 72, 67), (73, 69, 76, 71))
    return 0.2 * sum(_notes(voice, 6 * BEAT, 0.6) for voice in voices).ravel()


@pytest.fixture(scope="session")
def music() -> Array:
    return make_music()


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture(scope="session")
def gtzan() -> Classifier:
    return Classifier.load("gtzan")


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Write samples (n,) or (n, channels) as a float wav file; returns its path."""

    def write(samples: Array, rate: int = RATE, name: str = "clip.wav", subtype: str = "FLOAT") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype, format=None if "." in name else "WAV")
        return path

    return write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; returns exit status, stdout and stderr."""
    from musicclass.cli.app import main

    def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["musicclass", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main()
        return (status, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor write the user's feature cache."""
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
