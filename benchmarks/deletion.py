"""Whether explanations name what answers rest on: covering the named 20% against covering a random 20%.

python benchmarks/deletion.py FOLDER [--model NAME_OR_FOLDER] [--share 0.2]

FOLDER holds audio files, at any depth. Both cover as many cells, with the window's mean.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.progress import track

from common import print_table
from musicclass.classifier import Classifier
from musicclass.explain import cover
from musicclass.training.metrics import bootstrap
from musicclass.walk import files

RANDOM = 5  # draws for each file


def losses(name: str, classifier: Classifier, share: float, rng: np.random.Generator) -> tuple[float, float]:
    """What the best guess's probability loses by covering the named cells, and by covering others."""
    why = classifier.explain(name)
    config, index = classifier.bundle.features, classifier.genres.index(why.genre)
    count = round(share * why.weights.size)

    def left(chosen: np.ndarray) -> float:
        cells = np.zeros(why.weights.size, bool)
        cells[chosen] = True
        windows = cover(why.log_mel, cells.reshape(why.weights.shape), config)
        return float(classifier.bundle.confidence.probabilities(classifier.logits(windows).mean(axis=0))[index])

    whole = why.prediction.probabilities[why.genre]
    named = left(np.argsort(-why.weights, axis=None)[:count])
    drawn = [left(rng.choice(why.weights.size, count, replace=False)) for _ in range(RANDOM)]
    return whole - named, whole - float(np.mean(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--model", default="gtzan")
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    classifier, rng = Classifier.load(options.model), np.random.default_rng(0)
    names = list(files([options.folder]))
    found = np.array([losses(name, classifier, options.share, rng) for name in track(names, "Files")])
    gap = found[:, 0] - found[:, 1]
    rows = []
    for name, values in (("named", found[:, 0]), ("random", found[:, 1]), ("difference", gap)):
        low, high = bootstrap(lambda chosen, values=values: values[chosen].mean(), np.arange(len(values)), -1)
        rows.append((name, f"{values.mean():.3f}", f"{low:.3f} to {high:.3f}"))
    print_table(
        f"probability lost by covering {options.share:.0%} of the cells, mean of {len(names)} files",
        ("cells", "lost", "95% interval"),
        rows,
    )
    print(f"the named cells count more in {(gap > 0).mean():.0%} of the files")


if __name__ == "__main__":
    main()
