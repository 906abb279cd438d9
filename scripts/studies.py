"""Leaks, genres never heard, and cross-validation: python scripts/studies.py STUDY ARCHIVE.npz OUT

leaks      The default and the student's configuration, each on three splits of the same ten-second (student:
           three-second) segments: by segment, so that segments of one track are on both sides (leaky: only here, to
           show it), by track, and by artist. Results on the test side of each split, by segment, as that is what all
           three have alike. Tracks of unknown artists, which `artist` can't test, are only trained on
           there, so its test side has fewer of metal and jazz.
left-out   For each genre, networks that are trained without it, on the training tracks of the filtered split. Are
           tracks of that genre less familiar to them than validation tracks of the others? (AUROC)
folds      The networks of each kind (model.members CNN-LSTMs), and both kinds together, in five folds by artist of the
           filtered split's training and validation tracks, as train_pretrained.py does: to judge a change of settings.

OUT keeps every network's checkpoint, and the results as JSON and, but for folds, as a picture: the same command goes
on where it was broken off. Settings can be changed, such as --set training.epochs=30; for leaks, not those of the
archive's features.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
from matplotlib.figure import Figure

from musicclass import plots
from musicclass.confidence import TURNS, Confidence, turns
from musicclass.config import PRESETS, FeatureConfig, load_config
from musicclass.datasets import Dataset, Track, archive, open_dataset
from musicclass.datasets.splits import Split, make_split
from musicclass.features import Array
from musicclass.files import write_text
from musicclass.training.metrics import bootstrap, by_artist, share_interval
from train_pretrained import Member, by_folds, fit_all, judge, logits_of, mean_logits, networks_of, prepare

LEAKY = "by segment (leaky)"
SPLITS = {LEAKY: "random", "by track": "random", "by artist": "artist"}  # how segments are tied -> `make_split`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.npz", help="made by scripts/convert_logmel.py")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for results and checkpoints")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="networks trained at once")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE")
    options = parser.parse_args()
    prepare()
    options.out.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(options.archive)
    STUDIES[options.study](dataset, options.archive, options.out, options.jobs, tuple(options.set))


def leaks(dataset: Dataset, _: Path, out: Path, jobs: int, settings: tuple[str, ...]) -> None:
    """Accuracy of both configurations on the three splits."""
    networks, features = {}, PRESETS["default"].features  # (configuration, split) -> those of each kind
    # The archive's frames are 914 samples apart, and lack the highest bands.
    fixed = (f"features.hop_length={features.hop_length}", f"features.n_bands={features.n_bands}")
    for preset in ("default", "student"):
        config = load_config(preset, (*settings, *fixed, "training.windows_per_track=1"))
        for how, kind in SPLITS.items():
            cut = segments_of(dataset, config.features, out, tied=how != LEAKY)
            split = make_split(open_dataset(cut), kind)
            name = f"{preset} {how.split()[1]}"
            whole = replace(split, valid=(), train=split.train + split.valid)
            networks[preset, how] = networks_of(config, name, cut, whole)
    fit_all([member for kinds in networks.values() for kind in kinds for member in kind], out, jobs)
    rows = {key: judge_segments(kinds, out, SPLITS[key[1]] == "artist") for key, kinds in networks.items()}
    report = [{"configuration": preset, "split": how, **row} for (preset, how), row in rows.items()]
    write_text(out / "leaks.json", json.dumps(report, indent=1) + "\n")
    for row in report:
        print(
            "{configuration:8} {split:19} {accuracy:6.1%} [{interval[0]:.1%}, {interval[1]:.1%}] "
            "of {segments} segments of {tracks} tracks".format(**row)
        )
    plots.save(draw_leaks(report), out / "leaks.png")


def segments_of(dataset: Dataset, features: FeatureConfig, out: Path, tied: bool) -> Path:
    """An archive of the tracks' segments, one window long each; `tied`: those of one track stay together."""
    length = features.window_frames
    path = out / f"{dataset.name}-{length}-{'tracks' if tied else 'segments'}.npz"

    def cut() -> Iterator[tuple[Track, Array]]:
        for track in dataset.tracks:
            frames = dataset.log_mel(track, features)
            starts = np.linspace(0, len(frames) - length, round(len(frames) / length)).astype(int)
            for i, start in enumerate(starts):
                tie = (track.content or track.id) if tied else ""
                yield Track(f"{track.id} {i}", track.genre, track.artist, tie), frames[start : start + length]

    if not path.exists():
        archive.write(path, cut(), features)
    return path


def judge_segments(kinds: list[list[Member]], out: Path, artists: bool) -> dict[str, Any]:
    """Accuracy on the test side; its interval by track or artist, as segments of one are alike."""
    from musicclass.training.data import TrackWindows, load_frames

    member = kinds[0][0]
    dataset = open_dataset(member.archive)
    tracks = {track.id: track for track in dataset.tracks}
    ids, features = member.split.test, member.config.features
    frames = load_frames(dataset, ids, features)
    windows = TrackWindows([frames[i] for i in ids], features)
    logits = mean_logits([logits_of(kind, dataset, out, windows) for kind in kinds])
    told = [dataset.genres[int(rows.mean(axis=0).argmax())] for rows in logits]
    right = np.array([genre == tracks[name].genre for name, genre in zip(ids, told, strict=True)])
    of = [name.rsplit(" ", 1)[0] for name in ids]
    together = np.array([tracks[name].artist for name in ids] if artists else of)
    return {
        "segments": len(ids),
        "tracks": len(set(of)),
        "accuracy": float(right.mean()),
        "interval": share_interval(right, together),
    }


def draw_leaks(report: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    presets = list(dict.fromkeys(row["configuration"] for row in report))
    for i, preset in enumerate(presets):
        rows = [row for row in report if row["configuration"] == preset]
        shares = np.array([row["accuracy"] for row in rows])
        reach = np.abs(np.array([row["interval"] for row in rows]).T - shares)
        places = np.arange(len(SPLITS)) + (i - (len(presets) - 1) / 2) * 0.38
        bars = axis.bar(places, shares, 0.36, yerr=reach, capsize=3, color=plots.COLOURS[i], label=preset)
        axis.bar_label(bars, [f"{share:.0%}" for share in shares], label_type="center", color="white")
    axis.set_xticks(range(len(SPLITS)), list(SPLITS))
    axis.set(ylim=(0, 1), ylabel="accuracy by segment (bars: 95%)", title="One data set, split in three ways")
    axis.legend(frameon=False, title="configuration")
    return figure


def left_out(dataset: Dataset, _: Path, out: Path, jobs: int, settings: tuple[str, ...]) -> None:
    """AUROC of the genres that are known against one that isn't, for each genre in turn."""
    config = load_config(None, settings)
    split = make_split(dataset, "filtered")
    networks = {}
    for genre in dataset.genres:
        rest = out / f"{dataset.name}-without-{genre}.npz"
        fewer = replace(dataset, tracks=tuple(track for track in dataset.tracks if track.genre != genre))
        if not rest.exists():
            archive.write(rest, fewer.usable(fewer.tracks, config.features), config.features)
        known = {track.id for track in fewer.tracks}
        train, valid = (tuple(i for i in ids if i in known) for ids in (split.train, split.valid))
        networks[genre] = networks_of(config, f"without-{genre}", rest, replace(split, train=train, valid=valid))
    fit_all([member for kinds in networks.values() for kind in kinds for member in kind], out, jobs)
    report = {genre: judge_left_out(dataset, split, genre, kinds, out) for genre, kinds in networks.items()}
    scores = list(next(iter(report.values())))
    means = {score: float(np.mean([row[score][0] for row in report.values()])) for score in scores}
    write_text(out / "left_out.json", json.dumps({"genres": report, "means": means}, indent=1) + "\n")
    print(" " * 10, *(f"{score:>21}" for score in scores))
    for genre, row in report.items():
        print(f"{genre:10}", *("  {:.3f} [{:.3f}, {:.3f}]".format(*row[score]) for score in scores))
    print(f"{'mean':10}", *(f"  {mean:.3f}" + " " * 15 for mean in means.values()))
    plots.save(draw_left_out(report), out / "left_out.png")


def judge_left_out(
    dataset: Dataset, split: Split, genre: str, kinds: list[list[Member]], out: Path
) -> dict[str, tuple[float, float, float]]:
    """Score -> AUROC and its 95% interval: validation tracks of other genres against tracks of `genre`.

    None of these trained, nor did any track of their artists. Validation tracks are judged in turns, each by what was
    fitted to those of the other turns, and tracks of `genre` by the mean of all turns.
    """
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames

    member, tracks = kinds[0][0], {track.id: track for track in dataset.tracks}
    features = member.config.features
    known = open_dataset(member.archive)
    heard = {tracks[i].artist for i in member.split.train} - {""}
    learnt_frames = load_frames(known, member.split.train, features)
    learnt = familiar_windows(learnt_frames.values(), features)
    asked = [i for i in (*split.train, *split.valid) if tracks[i].genre == genre and tracks[i].artist not in heard]
    ids = [*member.split.valid, *asked]
    frames = load_frames(dataset, ids, features)
    windows = TrackWindows([frames[i] for i in ids], features)
    logits = mean_logits([logits_of(kind, known, out, windows) for kind in kinds])
    truth = np.array([known.genres.index(tracks[i].genre) for i in member.split.valid])
    turn, found = turns(truth), []
    for k in range(TURNS):
        rest = np.flatnonzero(turn != k)
        confidence = Confidence.fit(learnt, *([x[i] for i in rest] for x in (windows.tracks, logits)), truth[rest])
        found.append([scores_of(confidence, *pair) for pair in zip(windows.tracks, logits, strict=True)])
    n = len(truth)
    artists = by_artist([tracks[i].artist for i in ids])
    is_known, areas = np.arange(len(ids)) < n, {}
    for score in found[0][0]:
        by_turn = np.array([[row[score] for row in rows] for rows in found])
        values = np.concatenate([by_turn[turn, np.arange(n)], by_turn[:, n:].mean(axis=0)])
        low, high = bootstrap(lambda chosen: area(is_known[chosen], values[chosen]), artists)  # noqa: B023
        areas[score] = (area(is_known, values), low, high)
    return areas


def area(is_known: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> float:
    """AUROC by ranks, as a bootstrap asks for thousands of them."""
    ranks = scipy.stats.rankdata(values)
    n = int(is_known.sum())
    return float((ranks[is_known].sum() - n * (n + 1) / 2) / max(1, n * (len(values) - n)))


def scores_of(confidence: Confidence, windows: Array, logits: Array) -> dict[str, float]:
    """Ways to tell how well a model knows a track; `familiarity` is what it uses."""
    told = confidence.track(windows, logits)
    return {
        "familiarity": told.familiarity,
        "confidence": told.confidence,
        "probability": float(told.probabilities.max()),
        "maximum logit": float(logits.max(axis=1).mean()),
        "energy": float(np.log(np.exp(logits).sum(axis=1)).mean()),
    }


def draw_left_out(report: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    names = list(report)
    found = np.array([report[name]["familiarity"] for name in names])
    reach = np.abs(found[:, 1:].T - found[:, 0])
    axis.errorbar(range(len(names)), found[:, 0], yerr=reach, fmt="o", capsize=3, color=plots.COLOURS[0])
    axis.axhline(0.5, color="#555555", linewidth=1, label="chance")
    axis.axhline(0.7, color=plots.COLOURS[3], linestyle=":", label="wanted: 0.70")
    axis.set_xticks(range(len(names)), names, rotation=30)
    axis.set(ylim=(0, 1), ylabel="AUROC of familiarity", title="A genre never heard, told from those that are known")
    axis.legend(frameon=False, loc="lower right")
    return figure


def folds(dataset: Dataset, path: Path, out: Path, jobs: int, settings: tuple[str, ...]) -> None:
    """All metrics of each kind of network and of all together, each fold calibrated by the others."""
    networks = by_folds(dataset, path, load_config(None, settings))
    fit_all([member for kinds in networks for kind in kinds for member in kind], out, jobs)
    judge(dataset, networks, out)


STUDIES = {"leaks": leaks, "left-out": left_out, "folds": folds}

if __name__ == "__main__":
    main()
