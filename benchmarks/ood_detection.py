"""Out-of-distribution detection: how well scores separate the evaluated music from other sounds, as AUROC.

python benchmarks/ood_detection.py [--model NAME_OR_FOLDER] [--others OTHER_GENRES.npz] [--count 40]

Music: the tracks of the model's predictions.csv. Others: synthetic sounds (sounds.py) and, with --others, clips of
other genres as log-mel spectrograms in the format of scripts/convert_logmel.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import sounds
from common import argument_parser, print_table
from musicclass.classifier import Classifier
from musicclass.evaluation.evaluate import Record, read_predictions
from musicclass.features import TrackFeatures
from musicclass.prediction import UNKNOWN, Prediction
from musicclass.saved_model import METRICS_PREFERENCE, PREDICTIONS

SCORES = ("familiarity", "confidence")


def predict_others(path: Path, classifier: Classifier) -> Iterator[Prediction]:
    with np.load(path) as file:
        for name, image in zip(file["ids"], file["X"], strict=True):
            frames = image.T[:, : classifier.model.features.n_mels_kept].astype(np.float32) / 255 * 80
            yield classifier.predict_features(TrackFeatures(frames, 30.0), str(name))


def evaluated_music(classifier: Classifier) -> list[Record]:
    """The tracks of the first subset of METRICS_PREFERENCE in predictions.csv."""
    records = read_predictions(classifier.model.path / PREDICTIONS)
    return next(records[subset] for subset in METRICS_PREFERENCE if subset in records)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--count", type=int, default=40, help="sounds of each kind")
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    music = evaluated_music(classifier)
    predictions = {
        kind: [classifier.predict_waveform(sound, sounds.RATE) for sound in sounds.synthesize(kind, options.count)]
        for kind in sounds.KINDS
    }
    if options.others:
        predictions["music of other genres"] = list(predict_others(options.others, classifier))
    rows: list[tuple[str, ...]] = []
    for kind, others in predictions.items():
        if not others:
            print(f"{kind}: skipped, espeak-ng is not installed")
            continue
        labels = [1] * len(music) + [0] * len(others)
        aurocs = [f"{roc_auc_score(labels, [getattr(p, s) for p in (*music, *others)]):.3f}" for s in SCORES]
        rows.append((kind, str(len(others)), *aurocs, f"{np.mean([p.genre == UNKNOWN for p in others]):.0%}"))
    unknown = np.mean([record.predicted == UNKNOWN for record in music])
    rows.append(("evaluated music", str(len(music)), *[""] * len(SCORES), f"{unknown:.0%}"))
    print_table("AUROC against the evaluated music", ("sound", "clips", *SCORES, "predicted unknown"), rows)


if __name__ == "__main__":
    main()
