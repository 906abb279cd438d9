"""Whether audio gives the features, and the answers, of an archive made from spectrogram pictures of it.

python benchmarks/audio_agreement.py GENRES_ORIGINAL ARCHIVE.npz [--model NAME_OR_FOLDER]

GENRES_ORIGINAL is a copy of GTZAN, whole or not; tracks that are in both are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common import print_table
from musicclass import audio
from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.datasets import Dataset, Track, archive, gtzan
from musicclass.features import Array, log_mel
from musicclass.prediction import Prediction

HOP = 512  # samples; of the published pictures
Answers = tuple[Prediction, Prediction]  # from audio, from the archive


def picture_columns(n_columns: int, n_frames: int) -> npt.NDArray[np.intp]:
    """The hop-512 frame (n_columns,) that each column of a clip's picture shows.

    Columns are 1.785 frames apart in a clip of 1293 frames, and spread alike over shorter and longer ones.
    """
    x = np.arange(n_columns)
    frames = ((1.78522 * (x + 1) + 3.3003) * n_frames / 1293).astype(np.intp)
    return np.minimum(frames, n_frames - 1)


def feature_difference(waveform: Array, archived: Array) -> float:
    """Median over all cells, in dB, after both are scaled to 0..1: a picture keeps neither loudness nor floor."""
    config = FeatureConfig(hop_length=HOP, n_bands=archived.shape[1])
    frames = log_mel(waveform, config)
    decibels = np.maximum(frames - frames.max(), -config.top_db)[picture_columns(len(archived), len(frames))]
    return float(np.median(np.abs(to_unit(decibels) - to_unit(archived))) * np.ptp(decibels))


def to_unit(values: Array) -> Array:
    """Scaled so that the minimum is 0 and the maximum 1."""
    scaled: Array = (values - values.min()) / np.ptp(values)
    return scaled


def compare(
    pairs: Iterable[tuple[Track, Track]], pictures: Dataset, classifier: Classifier
) -> tuple[dict[str, float], dict[str, Answers]]:
    """Track id -> difference of features, and -> answers."""
    differences, answers = {}, {}
    config = classifier.bundle.features
    for track, archived in pairs:
        assert track.path is not None
        frames = pictures.log_mel(archived, config)
        differences[track.id] = feature_difference(audio.load(track.path, config.sample_rate), frames)
        heard = classifier.predict(track.path)
        answers[track.id] = heard, classifier.predict_log_mel(frames, heard.duration, track.id)
    return differences, answers


def print_features(differences: dict[str, float]) -> None:
    worst = max(differences, key=differences.__getitem__)
    rows = [
        ("median track", f"{np.median(list(differences.values())):.3f}"),
        (f"worst track, {worst}", f"{differences[worst]:.3f}"),
    ]
    print_table(f"features of {len(differences)} tracks", ("median over a track's cells", "dB"), rows)


def print_answers(answers: dict[str, Answers], model: str) -> None:
    odd = {name: pair for name, pair in answers.items() if pair[0].genre != pair[1].genre}
    rows = [
        (name, a.genre, f"{a.confidence:.1%}", b.genre, f"{b.confidence:.1%}") for name, (a, b) in sorted(odd.items())
    ]
    if rows:
        columns = ("track", "from audio", "confidence", "from archive", "confidence")
        print_table("answers that differ", columns, rows)
    gaps = [
        abs(a.probabilities[genre] - b.probabilities[genre]) for a, b in answers.values() for genre in a.probabilities
    ]
    print(f"answers of {model}: {len(answers) - len(odd)} of {len(answers)} agree")
    print(f"mean absolute difference of probabilities: {np.mean(gaps):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, metavar="GENRES_ORIGINAL")
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.npz")
    parser.add_argument("--model", default="gtzan")
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    music, pictures = gtzan.read(options.audio), archive.read(options.archive)
    archived = {track.id: track for track in pictures.tracks}
    pairs = [(track, archived[track.id]) for track in music.tracks if track.id in archived]
    if not pairs:
        parser.exit(2, f"no track is in both {options.audio} and {options.archive}\n")
    differences, answers = compare(pairs, pictures, classifier)
    print_features(differences)
    print_answers(answers, classifier.bundle.name)


if __name__ == "__main__":
    main()
