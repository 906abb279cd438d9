"""The synthetic sounds of the benchmarks, and how familiar they are to `music`."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

pytest.importorskip("scipy")
sys.path.append(str(ROOT / "benchmarks"))
import sounds

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng: apt install espeak-ng")


@pytest.mark.parametrize(
    "kind", [pytest.param("speech", marks=needs_espeak), *(k for k in sounds.KINDS if k != "speech")]
)
def test_sounds_differ_and_have_one_length_and_level(kind):
    first, second = sounds.synthesize(kind, 2)
    assert first.shape == second.shape == (sounds.N,) and not np.array_equal(first, second)
    assert np.abs(first).max() == pytest.approx(0.5)
    np.testing.assert_array_equal(first, next(sounds.synthesize(kind, 1)))


def test_there_are_texts_for_every_voice():
    assert all(voice[:2] in sounds.TEXTS for voice in sounds.VOICES)


@needs_espeak
@pytest.mark.slow
def test_speech_is_unknown(classifier):
    predictions = [classifier.predict_waveform(sound, sounds.RATE) for sound in sounds.synthesize("speech", 8)]
    assert sum(prediction.genre == "unknown" for prediction in predictions) >= 7
