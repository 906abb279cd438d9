"""Own genres from few clips: recall by number of training clips of each genre, on clips by other artists.

python benchmarks/few_clips.py ARCHIVE.npz [--source panda] [--draws 20] [--pretrained FOLDER]

Each draw is trained as by `musicclass train` without GTZAN: heads, weights and calibration by cross-validation. The
archive has embeddings (musicclass extract-features --config transfer). The CNN-LSTM of the pretrained model `music`
makes the figures optimistic for clips that it was trained on; FOLDER has a `music` that wasn't.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import print_table
from musicclass import saved_model
from musicclass.config import Config, load_config
from musicclass.datasets import keep_genres
from musicclass.datasets.feature_archive import read
from musicclass.datasets.splits import Split
from musicclass.prediction import OOD_THRESHOLD, UNKNOWN
from musicclass.training.cross_validation import predict_heldout
from musicclass.training.networks import Monitor
from musicclass.training.tracks import LabelledTracks
from musicclass.training.train import fit

CLIPS, N_GENRES, MIN_REST = (5, 10, 20), 12, 5


def draw(tracks: LabelledTracks, n: int, rng: np.random.Generator) -> tuple[LabelledTracks, LabelledTracks]:
    """`n` clips of each genre (all but MIN_REST of a small one), and the clips by other artists."""
    chosen = np.zeros(len(tracks), bool)
    for genre in range(len(tracks.genres)):
        rows = rng.permutation(np.flatnonzero(tracks.labels == genre))
        chosen[rows[: min(n, len(rows) - MIN_REST)]] = True
    artists = {track.artist for track, use in zip(tracks.tracks, chosen, strict=True) if use}
    rest = np.array([track.artist not in artists for track in tracks.tracks])
    return tracks.subset_of(chosen), tracks.subset_of(rest & ~chosen)


def recall(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Macro recall of probabilities or logits (n_tracks, n_genres)."""
    correct = probabilities.argmax(axis=1) == labels
    return float(np.mean([correct[labels == genre].mean() for genre in np.unique(labels)]))


def evaluate(training: LabelledTracks, rest: LabelledTracks, config: Config) -> tuple[float, ...]:
    """Macro recall of the tagger's head alone, and of the model; its shares of "unknown" in `rest` and in its folds."""
    with tempfile.TemporaryDirectory() as work:
        fitted = fit(training, Split("all", tuple(training.ids), ()), config, Path(work), Monitor())
    assert fitted.head
    ood = fitted.calibration.calibrator.feature_ood
    heldout = predict_heldout(fitted.networks, fitted.head, training, rest, config, ood)
    scores = [fitted.calibration.score(heldout, i, 1.0) for i in range(len(rest))]
    unknown = np.mean([score.familiarity < OOD_THRESHOLD for score in scores])
    in_folds = np.mean([record.predicted == UNKNOWN for record in fitted.cv])
    alone = recall(fitted.head.logits(rest.embeddings), rest.labels)
    return (
        alone,
        recall(np.stack([score.probabilities for score in scores]), rest.labels),
        float(unknown),
        float(in_folds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--source")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--pretrained", type=Path, default=saved_model.PRETRAINED)
    options = parser.parse_args()
    saved_model.PRETRAINED = options.pretrained
    dataset, config = read(options.archive), load_config("transfer")
    chosen = [t for t in dataset.tracks if options.source in (None, t.source) and t.confidence != "low"]
    counts = Counter(track.genre for track in chosen if track.genre != "other")
    dataset = keep_genres(replace(dataset, tracks=tuple(chosen)), [genre for genre, _ in counts.most_common(N_GENRES)])
    tracks = LabelledTracks.load(dataset, [track.id for track in chosen], config)
    tracks = tracks.subset_of(tracks.embeddings.any(axis=1))
    rows = []
    for n in CLIPS:
        draws = [evaluate(*draw(tracks, n, np.random.default_rng(seed)), config) for seed in range(options.draws)]
        rows.append(
            (str(n), *(f"{np.mean(x):.1%}" for x in zip(*draws, strict=True)), f"{np.std(draws, axis=0)[1]:.1%}")
        )
    title = f"{len(dataset.genres)} genres of {options.archive.name}, {options.draws} draws"
    columns = ("clips a genre", "tagger alone", "macro recall", '"unknown"', "in folds", "std of recall")
    print_table(title, columns, rows)


if __name__ == "__main__":
    main()
