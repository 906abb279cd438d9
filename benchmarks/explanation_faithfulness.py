"""Faithfulness of explanations: does occluding the 20% of cells with the largest weights matter more than random 20%?

python benchmarks/explanation_faithfulness.py FOLDER [--model NAME_OR_FOLDER] [--share 0.2]

A deletion test (Petsiuk et al. 2018) with one step. FOLDER contains audio files.
"""

from __future__ import annotations

import numpy as np
from rich.progress import track

from common import argument_parser, print_table
from musicclass import audio
from musicclass.audio_files import files
from musicclass.classifier import Classifier
from musicclass.evaluation.intervals import bootstrap_ci
from musicclass.explain import occlude
from musicclass.windows import windows_of_track

RANDOM_DRAWS = 5  # per file


def probability_drops(name: str, classifier: Classifier, share: float, rng: np.random.Generator) -> tuple[float, float]:
    """The decrease of the top genre's probability when the top cells, or random ones, are occluded."""
    features = classifier.model.features
    track_features = classifier.track_features(audio.stream(name, features.sample_rate))
    explanation = classifier.explain_features(track_features, classifier.predict_features(track_features))
    embeddings = windows_of_track(track_features, features).embeddings
    weights, index = explanation.weights, classifier.genres.index(explanation.genre)
    count = round(share * weights.size)

    def occluded(cells: np.ndarray) -> float:
        mask = np.zeros(weights.size, bool)
        mask[cells] = True
        windows = occlude(explanation.log_mel, mask.reshape(weights.shape), features)
        return float(classifier.score(windows, embeddings).probabilities[index])

    top = occluded(np.argsort(-weights, axis=None)[:count])
    random = np.mean([occluded(rng.choice(weights.size, count, replace=False)) for _ in range(RANDOM_DRAWS)])
    return explanation.prediction.confidence - top, explanation.prediction.confidence - float(random)


def main() -> None:
    parser = argument_parser(__doc__, "folder")
    parser.add_argument("--share", type=float, default=0.2)
    options = parser.parse_args()
    classifier, rng = Classifier.load(options.model), np.random.default_rng(0)
    names = list(files([options.folder]))
    drops = np.array([probability_drops(name, classifier, options.share, rng) for name in track(names, "Files")])
    rows = []
    for name, values in (("top", drops[:, 0]), ("random", drops[:, 1]), ("difference", drops[:, 0] - drops[:, 1])):
        low, high = bootstrap_ci(lambda ids, values=values: values[ids].mean(axis=-1), len(values), (-1.0, 1.0))
        rows.append((name, f"{values.mean():.3f}", f"{low:.3f} to {high:.3f}"))
    title = f"decrease of probability, {options.share:.0%} of the cells occluded, mean of {len(names)} files"
    print_table(title, ("cells", "decrease", "95% interval"), rows)
    print(f"the top cells matter more in {(drops[:, 0] > drops[:, 1]).mean():.0%} of the files")


if __name__ == "__main__":
    main()
