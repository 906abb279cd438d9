"""Own genres from few clips: recall by number of training clips of each genre, on clips by other artists.

python benchmarks/few_clips.py ARCHIVE.npz [--source panda] [--draws 20]

The archive has embeddings (musicclass extract-features --config transfer). Only the classifier of embeddings is used.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import print_table
from musicclass.config import load_config
from musicclass.datasets import keep_genres
from musicclass.datasets.feature_archive import read
from musicclass.training.tagger_head import fit_tagger_head
from musicclass.training.tracks import LabelledTracks

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


def macro_recall(training: LabelledTracks, rest: LabelledTracks) -> float:
    head = fit_tagger_head(training, load_config("transfer"))
    predicted, labels = head.logits(rest.embeddings).argmax(axis=1), rest.labels
    return float(np.mean([(predicted[labels == genre] == genre).mean() for genre in np.unique(labels)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--source")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    dataset = read(options.archive)
    chosen = [t for t in dataset.tracks if options.source in (None, t.source) and t.confidence != "low"]
    counts = Counter(track.genre for track in chosen if track.genre != "other")
    dataset = keep_genres(replace(dataset, tracks=tuple(chosen)), [genre for genre, _ in counts.most_common(N_GENRES)])
    tracks = LabelledTracks.load(dataset, [track.id for track in chosen], load_config("transfer"))
    tracks = tracks.subset_of(tracks.embeddings.any(axis=1))
    rows = []
    for n in CLIPS:
        recalls = [macro_recall(*draw(tracks, n, np.random.default_rng(seed))) for seed in range(options.draws)]
        rows.append((str(n), f"{np.mean(recalls):.1%}", f"{np.std(recalls):.1%}"))
    title = f"{len(dataset.genres)} genres of {options.archive.name}, {options.draws} draws"
    print_table(title, ("clips a genre", "macro recall", "std"), rows)


if __name__ == "__main__":
    main()
