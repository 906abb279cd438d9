"""Changes of genre along a track: how many are found within 5 s, and how many are spurious, by the switching cost.

python benchmarks/genre_changes.py DATA [--model NAME_OR_FOLDER] [--tracks 60] [--parts 3]

DATA is a folder with one sub-folder per genre, or a CSV of labels. Each track joins clips of different genres. Clips
that the model was trained on make the figures optimistic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common import argument_parser, print_table
from musicclass import audio
from musicclass.classifier import Classifier
from musicclass.datasets import Track, open_dataset
from musicclass.windows import SWITCHING_COST, most_probable_path, windows_of_track

TOLERANCE = 5.0  # seconds
COSTS = (0.0, 1.0, SWITCHING_COST, 3.0)


def draw(tracks: Sequence[Track], genres: Sequence[str], n_parts: int, rng: np.random.Generator) -> list[Track]:
    """One clip of each of `n_parts` genres."""
    by_genre = {genre: [track for track in tracks if track.genre == genre] for genre in genres}
    present = [clips for clips in by_genre.values() if clips]
    order = rng.permutation(len(present))[:n_parts]
    return [present[i][rng.integers(len(present[i]))] for i in order]


def joined_windows(clips: Sequence[Track], classifier: Classifier) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (n_windows, n_genres), segments (n_windows, 2) and the edges between the clips in seconds."""
    rate = classifier.model.features.sample_rate
    samples = [audio.load(clip.path, rate, classifier.limits) for clip in clips if clip.path]
    blocks = audio.stream_waveform(np.concatenate(samples), rate, rate, classifier.limits)
    track = windows_of_track(classifier.track_features(blocks), classifier.model.features)
    probabilities = classifier.score(track.windows, track.embeddings).window_probabilities
    return probabilities, track.times, np.cumsum([len(x) for x in samples]) / rate


def changes(path: Sequence[int], times: np.ndarray) -> Iterator[float]:
    """The times in seconds at which the genre changes."""
    yield from (times[i, 0] for i in range(1, len(path)) if path[i] != path[i - 1])


def main() -> None:
    parser = argument_parser(__doc__, "data")
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--parts", type=int, default=3, help="clips of each track")
    options = parser.parse_args()
    classifier = Classifier.load(options.model)
    tracks = [track for track in open_dataset(Path(options.data)).tracks if track.path]
    counts = np.zeros((len(COSTS), 3), np.intp)  # changes found; spurious changes; correct segments
    n_segments, rng = 0, np.random.default_rng(0)
    for _ in range(options.tracks):
        clips = draw(tracks, classifier.genres, options.parts, rng)
        probabilities, times, ends = joined_windows(clips, classifier)
        true = [clips[min(i, len(clips) - 1)].genre for i in np.searchsorted(ends, times.mean(axis=1))]
        n_segments += len(times)
        for row, cost in zip(counts, COSTS, strict=True):
            path = most_probable_path(probabilities, cost)
            at = np.array([*changes(path, times)])
            n_found = sum(bool(np.any(np.abs(at - edge) <= TOLERANCE)) for edge in ends[:-1])
            correct = sum(classifier.genres[i] == genre for i, genre in zip(path, true, strict=True))
            row += (n_found, len(at) - n_found, correct)
    n_changes = options.tracks * (options.parts - 1)
    rows = [
        (f"{cost:g}", f"{hits / n_changes:.0%}", f"{spurious / n_changes:.2f}", f"{correct / n_segments:.1%}")
        for cost, (hits, spurious, correct) in zip(COSTS, counts.tolist(), strict=True)
    ]
    columns = ("switching cost", f"found within {TOLERANCE:g} s", "spurious for each change", "correct segments")
    print_table(f"{n_changes} changes of genre in {options.tracks} tracks", columns, rows)


if __name__ == "__main__":
    main()
