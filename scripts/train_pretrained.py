"""Train the model that ships, from GTZAN's features to the bundle: python scripts/train_pretrained.py ARCHIVE.npz OUT

The tracks are those of the filtered split for training and validation. Each network is trained on one core, as many
at once as --jobs says:

- on four fifths of these tracks, five times, so that no artist is on both sides: a pretraining without labels, from
  which two CNN-LSTMs go on, one of them without the MFCCs' means, and a discriminant analysis of the statistics of
  windows. By what they say together of the fifth that none of them heard, the model is judged, each fold calibrated by
  the others; and to that, its calibration and its threshold for "unknown" are fitted.
- on all: the same. As one network, with convolutions in whole numbers, they are the model, OUT/gtzan.

OUT keeps every network's checkpoint: the same command goes on where it was broken off. The test tracks are
not touched. Keras runs on torch where that is installed (twice as fast here), else on TensorFlow; exporting
needs TensorFlow. Further settings: --set training.epochs=30.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicclass import plots
from musicclass.bundle import SIDE_NAMES, save_bundle
from musicclass.confidence import Confidence, Familiarity, Floats, Ints, is_known
from musicclass.config import Config, load_config, to_dict, with_seed
from musicclass.datasets import Dataset, Track, open_dataset
from musicclass.datasets.splits import Split, artist_folds, make_split
from musicclass.features import Array
from musicclass.files import write_text
from musicclass.prediction import UNKNOWN
from musicclass.printing import progress_bar

if TYPE_CHECKING:
    import keras

    from musicclass.training.data import TrackWindows

SPLIT = "filtered"
FOLDS = 5
SHIPPED = 2  # CNN-LSTMs, one with means and one without: more are hardly better, and slower
# After pretraining, more epochs only learn the tracks by heart.
SETTINGS = ("training.pretraining=100", "training.epochs=20")
WHAT = "Two CNN-LSTMs, one of which hears no means of MFCCs, and a discriminant analysis of statistics, in one network."
FITTED_BY = 4  # every so many of the training windows show the ranges of whole numbers


@dataclass(frozen=True)
class Member:
    """One network to be trained: on genres, from where `start` has come, or without them."""

    name: str
    archive: Path
    split: Split
    config: Config
    start: Member | None = None
    labelled: bool = True

    @property
    def epochs(self) -> int:
        return self.config.training.epochs if self.labelled else self.config.training.pretraining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.npz", help="made by scripts/convert_logmel.py")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the bundle, checkpoints and logs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="networks trained at once")
    parser.add_argument("--config", default=None, help="default, student, or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE")
    options = parser.parse_args()
    prepare()
    config = load_config(options.config, (*SETTINGS, *options.set))
    config = replace(config, model=replace(config.model, members=SHIPPED))
    dataset = open_dataset(options.archive)
    split = make_split(dataset, SPLIT)
    whole = replace(split, train=(*split.train, *split.valid), valid=())
    folds = by_folds(dataset, options.archive, config)
    shipped = networks_of(config, "whole", options.archive, whole)
    fit_all([member for kinds in (*folds, shipped) for kind in kinds for member in kind], options.out, options.jobs)
    judged = judge(dataset, folds, options.out)
    finish(dataset, whole, config, judged, shipped, options.out)


def by_folds(dataset: Dataset, path: Path, config: Config) -> list[list[list[Member]]]:
    """For each fold by artist of the training and validation tracks of the split, its networks of each kind."""
    split = make_split(dataset, SPLIT)
    both = {*split.train, *split.valid}
    folds = artist_folds([track for track in dataset.tracks if track.id in both], FOLDS)
    return [networks_of(config, f"fold-{i}", path, fold) for i, fold in enumerate(folds, 1)]


def networks_of(config: Config, name: str, archive: Path, split: Split) -> list[list[Member]]:
    """For each kind of network, its members, by seeds from 1, and, where it has one, the pretraining."""
    from musicclass.training.fit import parts

    kinds: dict[str, list[Member]] = defaultdict(list)
    for part in parts(with_seed(config, 1)):
        kind, training, start = part.model.network, part.training, None
        if training.pretraining:
            first = with_seed(part, config.training.seed)
            start = Member(f"{name}-pretraining", archive, split, first, labelled=False)
        kinds[kind].append(Member(f"{name}-{kind}-{training.seed}", archive, split, part, start))
    return list(kinds.values())


def prepare() -> None:
    """One thread for each process, and memory that isn't handed back after every step: half the time."""
    backend = "torch" if importlib.util.find_spec("torch") else "tensorflow"
    os.environ.setdefault("KERAS_BACKEND", backend)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that `fit_all` ends its workers
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))  # glibc reads these when a process starts
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))


def fit_all(members: list[Member], out: Path, jobs: int) -> None:
    """Train what isn't trained yet, first what others start from; shows epochs done, of all."""
    if starts := {member.start.name: member.start for member in members if member.start}:
        fit_all(list(starts.values()), out, jobs)
    total = sum(member.epochs for member in members)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool, progress_bar() as bar:
        running = [pool.submit(fit_member, member, out / member.name) for member in members]
        task = bar.add_task("Epochs", total=total)
        try:
            while not all(future.done() for future in running):
                bar.update(task, completed=sum(epochs_done(out / member.name / "log.txt") for member in members))
                if failed := [future for future in running if future.done() and future.exception()]:
                    failed[0].result()
                time.sleep(1)
        except BaseException:
            workers = list((pool._processes or {}).values())  # shutdown forgets them
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            print(f"stopped; the same command goes on where {out} is", file=sys.stderr)
            raise
        for future in running:
            future.result()


def epochs_done(log: Path) -> int:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    epochs = [line.split("/")[0].removeprefix("epoch ") for line in lines if line.startswith("epoch ")]
    return int(epochs[-1]) if epochs else 0


def fit_member(member: Member, folder: Path) -> None:
    """Train one network, in a process of its own; its last lines on stderr go into log.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8", buffering=1) as log, contextlib.redirect_stderr(log):
        (trained if member.labelled else pretrained)(open_dataset(member.archive), member, folder.parent)


def pretrained(dataset: Dataset, member: Member, out: Path, frames: dict[str, Array] | None = None) -> list[Array]:
    """What a pretraining has learnt, from its checkpoint where it has one."""
    from musicclass.training.data import load_frames
    from musicclass.training.fit import pretrain

    ids = list(member.split.train)
    frames = frames or load_frames(dataset, ids, member.config.features)
    return pretrain([frames[i] for i in ids], ids, member.config, out / member.name / "checkpoint.npz")


def trained(
    dataset: Dataset, member: Member, out: Path, frames: dict[str, Array] | None = None
) -> tuple[keras.Model, list[dict[str, float]]]:
    """A network and its history, from its checkpoint where it has one; `frames`, where they are at hand already."""
    from musicclass.training.data import load_frames
    from musicclass.training.fit import fit

    split, config, genres = member.split, member.config, dataset.genres
    frames = frames or load_frames(dataset, (*split.train, *split.valid), config.features)
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    checkpoint = out / member.name / "checkpoint.npz"
    start = pretrained(dataset, member.start, out, frames) if member.start and not checkpoint.exists() else None
    model, progress = fit(frames, labels, list(split.train), list(split.valid), genres, config, checkpoint, start)
    return model, progress.history


@dataclass(frozen=True)
class Fold:
    """Tracks, as networks answer that heard none of their artists."""

    tracks: list[Track]
    truth: Ints
    windows: list[Array]
    distances: list[Floats]  # of the windows
    familiarity: Familiarity
    logits: dict[str, list[Array]]  # of the windows, by each kind of network, and by all together


@dataclass(frozen=True)
class Judged:
    """What networks are worth on tracks of artists that they didn't hear: by each kind of network, and by all."""

    folds: list[Fold]
    rows: dict[str, list[dict[str, Any]]]  # as of `predict_tracks`, each fold calibrated by the others
    metrics: dict[str, dict[str, Any]]


def judge(dataset: Dataset, folds: list[list[list[Member]]], out: Path) -> Judged:
    """Ask the networks of each fold for the tracks that they didn't train on; write and print what that is worth."""
    from musicclass.training import evaluate
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames

    by_id, found = {track.id: track for track in dataset.tracks}, []
    first = folds[0][0][0]
    features = first.config.features
    frames = load_frames(dataset, (*first.split.train, *first.split.valid), features)  # of all folds
    for kinds in folds:
        split = kinds[0][0].split
        windows = TrackWindows([frames[i] for i in split.valid], features)
        familiarity = Familiarity.fit(familiar_windows([frames[i] for i in split.train], features), windows.tracks)
        logits = {kind[0].config.model.network: logits_of(kind, dataset, out, windows, frames) for kind in kinds}
        if len(kinds) > 1:
            logits |= {"+".join(logits): mean_logits(list(logits.values()))}
        tracks = [by_id[i] for i in split.valid]
        truth = np.array([dataset.genres.index(track.genre) for track in tracks])
        distances = [familiarity.distances(mfccs) for mfccs in windows.tracks]
        found.append(Fold(tracks, truth, windows.tracks, distances, familiarity, logits))
    rows = {networks: told(found, networks, dataset.genres) for networks in found[0].logits}
    metrics = {networks: evaluate.score(of_tracks, dataset.genres) for networks, of_tracks in rows.items()}
    write_text(out / "folds.json", json.dumps({"metrics": metrics, "predictions": rows}, indent=1) + "\n")
    for networks, judged in metrics.items():
        print(f"{networks}: {judged['tracks']} tracks, log loss {judged['log_loss']:.3f}")
        for name in ("accuracy", "macro_f1", "surest_60"):
            print(f"  {name:18}", "{:.1%} [{:.1%}, {:.1%}]".format(judged[name], *judged[f"{name}_95"]))
        error = "{:.3f} [{:.3f}, {:.3f}]".format(judged["calibration_error"], *judged["calibration_error_95"])
        print(f"  calibration_error  {error}; of a perfect model {judged['calibration_noise']:.3f}")
    return Judged(found, rows, metrics)


def logits_of(
    members: list[Member], dataset: Dataset, out: Path, windows: TrackWindows, frames: dict[str, Array] | None = None
) -> list[Array]:
    """What networks, each trained on `dataset`, answer together: for each track, its windows' logits."""
    return mean_logits([windows.logits(trained(dataset, x, out, frames)[0].predict_on_batch) for x in members])


def mean_logits(networks: Sequence[list[Array]]) -> list[Array]:
    """Of networks' logits for the windows of each track, those of all together."""
    return [np.mean(logits, axis=0) for logits in zip(*networks, strict=True)]


def calibrated(familiarity: Familiarity, folds: Sequence[Fold], networks: str) -> Confidence:
    """By what `networks` said of the tracks of these folds."""
    distances, logits = [], []
    for fold in folds:
        distances += fold.distances
        logits += fold.logits[networks]
    truth = np.concatenate([fold.truth for fold in folds])
    turn = np.repeat(np.arange(len(folds)), [len(fold.tracks) for fold in folds])
    return Confidence.calibrated(familiarity, distances, logits, truth, turn)


def usual_half(folds: Sequence[Fold]) -> float:
    """The distance within which nearly all tracks lie that a model never heard, as these folds have it."""
    return float(np.mean([fold.familiarity.half for fold in folds]))


def told(folds: Sequence[Fold], networks: str, genres: tuple[str, ...]) -> list[dict[str, Any]]:
    """What `networks` say of the tracks of each fold, calibrated by the others."""
    from musicclass.training.evaluate import as_row

    rows = []
    for fold in folds:
        others = [other for other in folds if other is not fold]
        confidence = calibrated(replace(fold.familiarity, half=usual_half(others)), others, networks)
        for track, heard, logits in zip(fold.tracks, fold.windows, fold.logits[networks], strict=True):
            found = confidence.track(heard, logits)
            best = genres[int(found.probabilities.argmax())]
            answer = best if is_known(found.familiarity, found.confidence, None) else UNKNOWN
            rows.append(as_row(track, answer, found.familiarity, found.confidence, found.probabilities))
    return rows


def finish(
    dataset: Dataset, split: Split, config: Config, judged: Judged, shipped: list[list[Member]], out: Path
) -> None:
    """From the trained networks to the bundle that ships, OUT/gtzan."""
    from musicclass.training import evaluate
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames
    from musicclass.training.train import data_of, versions

    genres, features = dataset.genres, config.features
    frames = load_frames(dataset, split.train, features)
    windows = TrackWindows([frames[i] for i in split.train], features).tracks
    ranges = np.concatenate([x for x in windows if x.shape[1] == features.window_frames])[::FITTED_BY]
    made = together(config, [[trained(dataset, x, out, frames) for x in kind] for kind in shipped], ranges)
    networks = config.model.network
    familiarity = Familiarity.fit(familiar_windows(frames.values(), features), windows)
    familiarity = replace(familiarity, half=usual_half(judged.folds))
    rows, metrics = judged.rows[networks], judged.metrics[networks]
    card = {
        "name": "gtzan",
        "about": about(metrics, len(split.train)),
        "genres": list(genres),
        "data": data_of(dataset, split, {side: list(ids) for side, ids in split.sides().items()}),
        "confidence": calibrated(familiarity, judged.folds, networks).to_dict()
        | {"fitted_on": f"{len(rows)} tracks, by networks that heard none of their artists"},
        "metrics": {"folds": metrics},
        "predictions": {"folds": rows},
        "config": to_dict(made.config),
        "parameters": made.parameters,
        "history": made.history,
        "versions": versions(),
    }
    bundle = out / "gtzan"
    evaluate.write_history(bundle / "history.csv", made.history)
    plots.save(plots.history(made.history, "mean of the CNN-LSTMs"), bundle / "history.png")
    plots.evaluation(bundle, genres, metrics, f"gtzan, {SIDE_NAMES['folds']} tracks")
    save_bundle(bundle, made.network, card)
    print(card["about"], f"{bundle} written", sep="\n")


@dataclass(frozen=True)
class Together:
    """Several networks as one, in ONNX, and what is to be said of it."""

    network: bytes
    config: Config
    parameters: int
    history: list[dict[str, float]]  # mean of those of the first kind


def together(config: Config, found: list[list[tuple[keras.Model, list[dict[str, float]]]]], ranges: Array) -> Together:
    """One network of those of each kind, `ranges`: windows to which its whole numbers are fitted."""
    from musicclass.training.export import to_int8, to_onnx
    from musicclass.training.model import ensemble

    n_mfcc, n_genres = config.features.n_mfcc, found[0][0][0].output_shape[-1]
    config = replace(config, model=replace(config.model, members=len(found[0])))
    model = ensemble(config.model, n_mfcc, n_genres, [model.get_weights() for kind in found for model, _ in kind])
    network = to_int8(to_onnx(model, config.model, n_mfcc, n_genres), ranges)
    history = [mean_row(epoch) for epoch in zip(*(rows for _, rows in found[0]), strict=True)]
    return Together(network, config, model.count_params(), history)


def mean_row(rows: tuple[dict[str, float], ...]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def about(judged: dict[str, Any], tracks: int) -> str:
    from musicclass.training.evaluate import in_words

    return (
        f"{WHAT} They were trained on the {tracks} training and validation tracks of GTZAN's filtered split. In "
        f"{FOLDS} folds of these by artist, networks made alike are right on {in_words(judged, SIDE_NAMES['folds'])}. "
        "The result on the test tracks is still to come."
    )


if __name__ == "__main__":
    main()
