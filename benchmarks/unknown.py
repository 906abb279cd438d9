"""How well confidence, and its two factors, tell a model's music from what it isn't fit to tell.

python benchmarks/unknown.py ARCHIVE.npz [--model NAME_OR_FOLDER] [--others OTHER_GENRES.npz] [--count 40]

The music: the validation tracks of the model's card (for a model that trained on these, too: all tracks
given, which flatters it). The rest is made here (sounds.py; speech needs espeak-ng); --others are frames
of clips outside the genres, in the layout that scripts/convert_logmel.py reads. Where the archive was made from
pictures, a clip's range has been stretched to 80 dB there, which is not so for sounds made here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import sounds
from common import print_table
from musicclass.classifier import Classifier
from musicclass.datasets import archive
from musicclass.prediction import UNKNOWN, Prediction

Scores = dict[str, list[float]]


def scores(predictions: list[Prediction]) -> Scores:
    return {
        "confidence": [p.confidence for p in predictions],
        "familiarity": [p.familiarity for p in predictions],
        "probability": [p.probabilities[p.best_guess] for p in predictions],
    }


def music(path: Path, classifier: Classifier) -> Iterator[Prediction]:
    dataset, config = archive.read(path), classifier.bundle.features
    chosen = set(classifier.bundle.card["data"]["split"]["valid"]) or {track.id for track in dataset.tracks}
    for track in dataset.tracks:
        if track.id in chosen:
            yield classifier.predict_log_mel(dataset.log_mel(track, config), 30.0, track.id)


def others(path: Path, classifier: Classifier) -> Iterator[Prediction]:
    with np.load(path) as file:
        for name, picture in zip(file["ids"], file["X"], strict=True):
            frames = picture.T[:, : classifier.bundle.features.n_bands].astype(np.float32) / 255 * 80
            yield classifier.predict_log_mel(frames, 30.0, str(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.npz")
    parser.add_argument("--model", default="gtzan")
    parser.add_argument("--others", type=Path)
    parser.add_argument("--count", type=int, default=40, help="sounds of each kind")
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    known = list(music(options.archive, classifier))
    strange = {
        kind: [classifier.predict_waveform(sound, sounds.RATE) for sound in sounds.made(kind, options.count)]
        for kind in sounds.KINDS
    }
    if options.others:
        strange["other genres"] = list(others(options.others, classifier))
    rows, at_home = [], scores(known)
    for kind, found in strange.items():
        if not found:
            print(f"{kind}: left out, as espeak-ng is not installed")
            continue
        away = scores(found)
        labels = [1] * len(known) + [0] * len(found)
        areas = [f"{roc_auc_score(labels, at_home[name] + away[name]):.3f}" for name in at_home]
        unknown = np.mean([p.genre == UNKNOWN for p in found])
        rows.append((kind, str(len(found)), *areas, f"{unknown:.0%}"))
    rows.append(("music", str(len(known)), "", "", "", f"{np.mean([p.genre == UNKNOWN for p in known]):.0%}"))
    print_table("AUROC against music, by score", ("sound", "clips", *at_home, "told as unknown"), rows)


if __name__ == "__main__":
    main()
