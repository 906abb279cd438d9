"""Made-up sounds and small data sets that the tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import hypothesis
import numpy as np
import pytest
import soundfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from musicclass.classifier import Classifier
from musicclass.features import Array

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
RATE = 22_050


def script(name: str) -> ModuleType:
    """A program of the project, such as scripts/make_clip.py, as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_music(seconds: float = 24.0, rate: int = RATE) -> Array:
    """The demo's made-up music at `rate`, mono: drums and bass, then chords; repeated when it runs out."""
    import soxr

    clip = script("scripts/make_clip.py")
    whole = np.concatenate([clip.groove(np.random.default_rng(0)), clip.chords()]).astype(np.float32)
    sound = soxr.resample(0.5 * whole / np.abs(whole).max(), clip.RATE, rate)
    return np.resize(sound, int(seconds * rate)).astype(np.float32)


def make_noise(seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> Array:
    """White noise at -20 dBFS."""
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate)).astype(np.float32)


def make_tone(frequency: float, seconds: float = 3.0, rate: int = RATE) -> Array:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="session")
def music() -> Array:
    return make_music()


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Write samples (n,) or (n, channels) as a float wav file; returns its path."""

    def write(samples: Array, rate: int = RATE, name: str = "clip.wav", subtype: str = "FLOAT") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype, format=None if "." in name else "WAV")
        return path

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's feature cache."""
    monkeypatch.setenv("MUSICCLASS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
