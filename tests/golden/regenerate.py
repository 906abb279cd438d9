"""Rewrite the golden values after an intended change: python -m tests.golden.regenerate

They detect unintended changes; the tests that read them have the tolerances.
"""

from __future__ import annotations

import json
from pathlib import Path

from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.features import log_mel, mfcc
from musicclass.windows import normalize_window
from tests.conftest import RATE, make_music

FOLDER = Path(__file__).parent


def main() -> None:
    config = FeatureConfig()
    frames = log_mel(make_music(12), config)
    coefficients = mfcc(normalize_window(frames, 0, config), config.n_mfcc)
    features = {"log_mel": frames[::50, ::16].tolist(), "mfcc": coefficients[::50, ::8].tolist()}
    features = {name: [[round(value, 4) for value in row] for row in rows] for name, rows in features.items()}
    probabilities = Classifier.load().predict_waveform(make_music(24), RATE).probabilities
    rounded = {genre: round(value, 5) for genre, value in probabilities.items()}
    (FOLDER / "features.json").write_text(json.dumps(features) + "\n")
    (FOLDER / "prediction.json").write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
