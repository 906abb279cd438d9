"""Write the golden values anew, after a change that is meant to change them: python -m tests.golden.regenerate

They guard against changes nobody meant. Tolerances stand in the tests that read them.
"""

from __future__ import annotations

import json
from pathlib import Path

from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.features import log_mel, mfcc, scale_window
from tests.conftest import RATE, make_music

HERE = Path(__file__).parent


def main() -> None:
    config = FeatureConfig()
    frames = log_mel(make_music(12), config)
    coefficients = mfcc(scale_window(frames, 0, config), config.n_mfcc)
    features = {"log_mel": frames[::50, ::16].round(3).tolist(), "mfcc": coefficients[::50, ::8].round(4).tolist()}
    prediction = Classifier.load().predict_waveform(make_music(24), RATE)
    answer = {genre: round(share, 4) for genre, share in prediction.probabilities.items()}
    (HERE / "features.json").write_text(json.dumps(features) + "\n")
    (HERE / "prediction.json").write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
