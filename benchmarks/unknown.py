"""How well familiarity, confidence and the probability alone tell a model's music from what it isn't fit to tell.

python benchmarks/unknown.py [--model NAME_OR_FOLDER] [--others OTHER_GENRES.npz] [--count 40]

The music: the tracks that the model's card judges it by, as told there (by models made alike, which didn't hear them).
The rest is made here (sounds.py; speech needs espeak-ng); --others are frames of clips outside the genres, in the
layout that scripts/convert_logmel.py reads. Where GTZAN's frames were made from pictures, their range was stretched
to 80 dB there, which is not so for sounds made here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import sounds
from common import print_table
from musicclass.bundle import judged_side
from musicclass.classifier import Classifier
from musicclass.prediction import UNKNOWN, Prediction

Scores = dict[str, list[float]]


def scores(predictions: list[Prediction]) -> Scores:
    return {
        "familiarity": [p.familiarity for p in predictions],
        "confidence": [p.confidence for p in predictions],
        "probability": [p.probabilities[p.best_guess] for p in predictions],
    }


def others(path: Path, classifier: Classifier) -> Iterator[Prediction]:
    with np.load(path) as file:
        for name, picture in zip(file["ids"], file["X"], strict=True):
            frames = picture.T[:, : classifier.bundle.features.n_bands].astype(np.float32) / 255 * 80
            yield classifier.predict_log_mel(frames, 30.0, str(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gtzan")
    parser.add_argument("--others", type=Path)
    parser.add_argument("--count", type=int, default=40, help="sounds of each kind")
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    card = classifier.bundle.card
    known = card["predictions"][judged_side(card)]
    at_home = {
        "familiarity": [row["familiarity"] for row in known],
        "confidence": [row["confidence"] for row in known],
        "probability": [max(row["probabilities"]) for row in known],
    }
    strange = {
        kind: [classifier.predict_waveform(sound, sounds.RATE) for sound in sounds.made(kind, options.count)]
        for kind in sounds.KINDS
    }
    if options.others:
        strange["other genres"] = list(others(options.others, classifier))
    rows: list[tuple[str, ...]] = []
    for kind, found in strange.items():
        if not found:
            print(f"{kind}: left out, as espeak-ng is not installed")
            continue
        away = scores(found)
        labels = [1] * len(known) + [0] * len(found)
        areas = [f"{roc_auc_score(labels, at_home[name] + away[name]):.3f}" for name in at_home]
        unknown = np.mean([p.genre == UNKNOWN for p in found])
        rows.append((kind, str(len(found)), *areas, f"{unknown:.0%}"))
    rows.append(("music", str(len(known)), "", "", "", f"{np.mean([row['told'] == UNKNOWN for row in known]):.0%}"))
    print_table("AUROC against music, by score", ("sound", "clips", *at_home, "told as unknown"), rows)


if __name__ == "__main__":
    main()
