"""Train the model that ships, from GTZAN's features to the bundle: python scripts/train_pretrained.py ARCHIVE.npz OUT

Each network is trained on one core, as many at once as --jobs says:

- on the training tracks of the filtered split: a pretraining without labels, from which five CNN-LSTMs go on, and a
  discriminant analysis of the statistics of windows. That and the first two CNN-LSTMs, as one network with convolutions
  in whole numbers, are the stand-in, OUT/gtzan-valid. It predicts the validation tracks, which no part of it saw: from
  that come the calibration, the threshold for "unknown", and the metrics "stand_in". Each CNN-LSTM, beside the
  statistics, gives those of a seed.
- on training and validation tracks together: the same, but for two CNN-LSTMs. They are the model, OUT/gtzan.

OUT keeps every network's checkpoint: the same command goes on where it was broken off. The test tracks are
not touched. Keras runs on torch where that is installed (twice as fast here), else on TensorFlow; exporting
needs TensorFlow. Further settings: --set training.epochs=30.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
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
from musicclass.bundle import SIDE_NAMES, judged_side, save_bundle
from musicclass.confidence import TURNS, Confidence, Ints, turns
from musicclass.config import Config, load_config, to_dict, with_seed
from musicclass.datasets import Dataset, open_dataset
from musicclass.datasets.splits import Split, make_split
from musicclass.features import Array
from musicclass.prediction import UNKNOWN
from musicclass.printing import progress_bar

if TYPE_CHECKING:
    import keras

SPLIT = "filtered"
SEEDS = 5
SHIPPED = 2  # CNN-LSTMs: more are hardly better, and slower
# After pretraining, more epochs only learn the tracks by heart.
SETTINGS = ("training.pretraining=100", "training.epochs=20")
WHAT = "Two CNN-LSTMs and a discriminant analysis of the statistics of windows, in one network."
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
    dataset = open_dataset(options.archive)
    split = make_split(dataset, SPLIT)
    whole = replace(split, train=(*split.train, *split.valid), valid=())
    stand_ins = networks_of(config, "stand-in", options.archive, split, SEEDS)
    shipped = networks_of(config, "whole", options.archive, whole, SHIPPED)
    members = [member for kind in (*stand_ins, *shipped) for member in kind]
    fit_all(members, options.out, options.jobs)
    finish(dataset, split, config, stand_ins, shipped, options.out)


def networks_of(config: Config, name: str, archive: Path, split: Split, count: int) -> list[list[Member]]:
    """For each kind of network, its members, by seeds from 1 to `count`, and, where it has one, the pretraining."""
    from musicclass.training.fit import parts

    kinds: dict[str, list[Member]] = defaultdict(list)
    several = replace(config, model=replace(config.model, members=count))
    for part in parts(with_seed(several, 1)):
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


def finish(
    dataset: Dataset,
    split: Split,
    config: Config,
    stand_ins: list[list[Member]],
    shipped: list[list[Member]],
    out: Path,
) -> None:
    """From the trained networks to two bundles: OUT/gtzan, which ships, and OUT/gtzan-valid, which can be tried on the
    validation tracks, as it never heard them."""
    from musicclass.training import evaluate
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames
    from musicclass.training.export import runner
    from musicclass.training.train import data_of

    genres, features = dataset.genres, config.features
    genre_of = {track.id: track.genre for track in dataset.tracks}
    truth = np.array([genres.index(genre_of[i]) for i in split.valid])
    frames = load_frames(dataset, (*split.train, *split.valid), features)
    learnt = familiar_windows([frames[i] for i in split.train], features)
    valid = TrackWindows([frames[i] for i in split.valid], features)
    heard_in_training = TrackWindows([frames[i] for i in split.train], features).tracks
    ranges = np.concatenate([x for x in heard_in_training if x.shape[1] == features.window_frames])[::FITTED_BY]

    found = [[trained(dataset, member, out, frames) for member in kind] for kind in stand_ins]
    stand_in = together(config, [kind[:SHIPPED] for kind in found], ranges)
    answers = valid.logits(runner(stand_in.network))
    confidence = Confidence.fit(learnt, valid.tracks, answers, truth)
    rows = told_in_turns(learnt, split.valid, valid.tracks, answers, truth, genres, genre_of)
    by_kind = [[valid.logits(model.predict_on_batch) for model, _ in kind] for kind in found]
    by_seed = [mean_logits([one, *(kind[0] for kind in by_kind[1:])]) for one in by_kind[0]]
    runs = [evaluate.score(told(Confidence(), split.valid, valid.tracks, x, genres, genre_of), genres) for x in by_seed]
    judged = evaluate.score(rows, genres)
    card = {
        "genres": list(genres),
        "confidence": confidence.to_dict()
        | {"fitted_on": f"{len(split.valid)} validation tracks, by networks that never heard them"},
        "seeds": [{name: run[name] for name in ("accuracy", "macro_f1", "log_loss")} for run in runs],
    }
    sides = {side: list(ids) for side, ids in split.sides().items()}
    results = {"metrics": {"valid": judged}, "predictions": {"valid": rows}}
    data = {"data": data_of(dataset, split, sides), "about": about_stand_in(judged)}
    write(out / "gtzan-valid", card | results | data, stand_in)

    sides |= {"train": sides["train"] + sides["valid"], "valid": []}
    results = {"metrics": {"stand_in": judged}, "predictions": {"stand_in": rows}}
    data = {"data": data_of(dataset, split, sides), "about": about(judged)}
    found = [[trained(dataset, member, out, frames) for member in kind] for kind in shipped]
    write(out / "gtzan", card | results | data, together(config, found, ranges))


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


def write(bundle: Path, card: dict[str, Any], made: Together) -> None:
    """A bundle, with its pictures."""
    from musicclass.training import evaluate
    from musicclass.training.train import versions

    what = {
        "name": bundle.name,
        "config": to_dict(made.config),
        "parameters": made.parameters,
        "history": made.history,
        "versions": versions(),
    }
    evaluate.write_history(bundle / "history.csv", made.history)
    plots.save(plots.history(made.history, "mean of the CNN-LSTMs"), bundle / "history.png")
    side = judged_side(card)
    plots.evaluation(bundle, tuple(card["genres"]), card["metrics"][side], f"{bundle.name}, {SIDE_NAMES[side]} tracks")
    save_bundle(bundle, made.network, what | card)
    print(card["about"], f"{bundle} written", sep="\n")


def told(
    confidence: Confidence,
    ids: tuple[str, ...],
    windows: list[Array],
    logits: list[Array],
    genres: tuple[str, ...],
    genre_of: dict[str, str],
) -> list[dict[str, Any]]:
    """Rows as of `predict_tracks`, for networks that are no bundle of their own."""
    from musicclass.training.evaluate import as_row

    rows = []
    for name, heard, scores in zip(ids, windows, logits, strict=True):
        found = confidence.track(heard, scores)
        best = genres[int(found.probabilities.argmax())]
        answer = best if found.confidence >= confidence.min_confidence else UNKNOWN
        rows.append(as_row(name, genre_of[name], answer, found.confidence, found.probabilities))
    return rows


def told_in_turns(
    learnt: list[Array],
    ids: tuple[str, ...],
    windows: list[Array],
    logits: list[Array],
    truth: Ints,
    genres: tuple[str, ...],
    genre_of: dict[str, str],
) -> list[dict[str, Any]]:
    """Rows of held-out tracks, each calibrated by those of the other turns."""
    turn, rows = turns(truth), {}
    for k in range(TURNS):
        left, rest = np.flatnonzero(turn == k), np.flatnonzero(turn != k)
        confidence = Confidence.fit(learnt, *([x[i] for i in rest] for x in (windows, logits)), truth[rest])
        asked = ([x[i] for i in left] for x in (windows, logits))
        rows |= zip(left.tolist(), told(confidence, tuple(ids[i] for i in left), *asked, genres, genre_of), strict=True)
    return [rows[i] for i in range(len(ids))]


def mean_logits(networks: Sequence[list[Array]]) -> list[Array]:
    """Of networks' logits for the windows of each track, those of all together."""
    return [np.mean(logits, axis=0) for logits in zip(*networks, strict=True)]


def mean_row(rows: tuple[dict[str, float], ...]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def about_stand_in(judged: dict[str, Any]) -> str:
    from musicclass.training.evaluate import in_words

    return (
        f"{WHAT} They were trained on the training tracks of GTZAN's filtered split. "
        f"Right on {in_words(judged)} for validation, by which its settings were chosen."
    )


def about(judged: dict[str, Any]) -> str:
    from musicclass.training.evaluate import in_words

    return (
        f"{WHAT} They were trained on the training and validation tracks of GTZAN's filtered split. A stand-in, made "
        f"alike from the training tracks alone, is right on {in_words(judged)} for validation. "
        "The result on the test tracks is still to come."
    )


if __name__ == "__main__":
    main()
