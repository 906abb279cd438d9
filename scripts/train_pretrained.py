"""Train the model that ships, from GTZAN's features to the bundle: python scripts/train_pretrained.py ARCHIVE.npz OUT

Fourteen networks are trained, each on one core, as many at once as --jobs says:

- five seeds on the training tracks of the filtered split, and two students of theirs: networks that learn, on the same
  tracks, to answer as the five do together. These two, as one network with convolutions in whole numbers, predict the
  validation tracks, which none of them saw (OUT/gtzan-valid). From that come the calibration, the threshold for
  "unknown", and the metrics "valid".
- five folds of training and validation tracks together, by artist. Each predicts the tracks it never saw, which
  gives the metrics "folds". Two students of these five, as one network, are the model, OUT/gtzan.

OUT keeps every network's checkpoint: the same command goes on where it was broken off. The test tracks are
not touched. Keras runs on torch where that is installed (twice as fast here), else on TensorFlow; exporting
needs TensorFlow. Further settings: --set training.epochs=20.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicclass import plots
from musicclass.bundle import SIDE_NAMES, judged_side, save_bundle
from musicclass.confidence import Confidence
from musicclass.config import Config, load_config, to_dict, with_seed
from musicclass.datasets import Dataset, open_dataset
from musicclass.datasets.splits import Split, artist_folds, make_split
from musicclass.features import Array
from musicclass.files import write_atomically
from musicclass.prediction import UNKNOWN
from musicclass.printing import progress_bar

if TYPE_CHECKING:
    import keras

COUNT = 5
SPLIT = "filtered"
STUDENT_SEEDS = (42, 2)
EPOCHS = {"stand-in": 2.5, "student": 5 / 3}  # of students, times those of their teachers: about as many steps for both
FITTED_BY = 4  # every so many of the training windows show the ranges of whole numbers


@dataclass(frozen=True)
class Member:
    """One network to be trained: by labels, or, with a teacher (an ONNX file), to answer as that does."""

    name: str
    archive: Path
    split: Split
    config: Config
    teacher: Path | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.npz", help="made by scripts/convert_logmel.py")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the bundle, checkpoints and logs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="networks trained at once")
    parser.add_argument("--config", default=None, help="default, student, or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE")
    options = parser.parse_args()
    prepare()
    config = load_config(options.config, tuple(options.set))
    dataset = open_dataset(options.archive)
    split = make_split(dataset, SPLIT)
    both = {*split.train, *split.valid}
    folds = artist_folds([track for track in dataset.tracks if track.id in both], COUNT)
    seeded = [with_seed(config, seed) for seed in range(1, COUNT + 1)]
    seeds = [Member(f"seed-{i}", options.archive, split, c) for i, c in enumerate(seeded, 1)]
    fold_members = [
        Member(f"fold-{i}", options.archive, fold, c) for i, (fold, c) in enumerate(zip(folds, seeded, strict=True), 1)
    ]
    whole = replace(split, train=(*split.train, *split.valid), valid=())
    stand_ins = students_of(config, "stand-in", options.archive, split, options.out / "seeds.onnx")
    students = students_of(config, "student", options.archive, whole, options.out / "folds.onnx")
    fit_all([*seeds, *fold_members], options.out, options.jobs)
    write_teacher(dataset, seeds, options.out, stand_ins[0])
    write_teacher(dataset, fold_members, options.out, students[0])
    fit_all([*stand_ins, *students], options.out, options.jobs)
    finish(dataset, split, seeds, fold_members, stand_ins, students, options.out)


def students_of(config: Config, name: str, archive: Path, split: Split, teacher: Path) -> list[Member]:
    """Networks that learn from another: on windows that are now and then mixed, and for more steps."""
    epochs = round(EPOCHS[name] * config.training.epochs)
    config = replace(config, training=replace(config.training, epochs=epochs, label_smoothing=0.0, mixup=0.3))
    return [
        Member(f"{name}-{i}", archive, split, with_seed(config, seed), teacher)
        for i, seed in enumerate(STUDENT_SEEDS, 1)
    ]


def write_teacher(dataset: Dataset, members: list[Member], out: Path, student: Member) -> None:
    """Several networks in one, as ONNX, where `student` looks for it."""
    if student.teacher and not student.teacher.exists():
        with write_atomically(student.teacher) as file:
            file.write(together(members, [trained(dataset, member, out)[0] for member in members]))


def together(members: list[Member], models: Sequence[keras.Model]) -> bytes:
    """Several networks as one, in ONNX."""
    from musicclass.training.export import to_onnx
    from musicclass.training.model import ensemble

    config, n_genres = members[0].config, models[0].output_shape[-1]
    n_mfcc = config.features.n_mfcc
    model = ensemble(config.model, n_mfcc, n_genres, [model.get_weights() for model in models])
    return to_onnx(model, replace(config.model, members=len(members)), n_mfcc, n_genres)


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
    """Train what isn't trained yet; shows epochs done, of all."""
    total = sum(member.config.training.epochs for member in members)
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
        trained(open_dataset(member.archive), member, folder.parent)


def finish(
    dataset: Dataset,
    split: Split,
    seeds: list[Member],
    folds: list[Member],
    stand_ins: list[Member],
    students: list[Member],
    out: Path,
) -> None:
    """From the trained networks to two bundles: OUT/gtzan, which ships, and OUT/gtzan-valid, which can be tried on the
    validation tracks, as neither its networks nor their teachers trained on them."""
    from musicclass.training import evaluate
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames
    from musicclass.training.export import runner, to_int8
    from musicclass.training.train import data_of

    genres, features = dataset.genres, seeds[0].config.features
    genre_of = {track.id: track.genre for track in dataset.tracks}
    truth = np.array([genres.index(genre_of[i]) for i in split.valid])
    frames = load_frames(dataset, (*split.train, *split.valid), features)
    learnt = familiar_windows([frames[i] for i in split.train], features)
    valid = TrackWindows([frames[i] for i in split.valid], features)
    heard_in_training = TrackWindows([frames[i] for i in split.train], features).tracks
    ranges = np.concatenate([x for x in heard_in_training if x.shape[1] == features.window_frames])[::FITTED_BY]

    stand_in_models, stand_in_histories = zip(*(trained(dataset, x, out, frames) for x in stand_ins), strict=True)
    stand_in = to_int8(together(stand_ins, stand_in_models), ranges)
    answers = valid.logits(runner(stand_in))
    confidence = Confidence.fit(learnt, valid.tracks, answers, truth)
    rows = told(confidence, split.valid, valid.tracks, answers, genres, genre_of)
    plain = Confidence()
    by_seed = [valid.logits(trained(dataset, member, out, frames)[0].predict_on_batch) for member in seeds]
    runs = [evaluate.score(told(plain, split.valid, valid.tracks, x, genres, genre_of), genres) for x in by_seed]

    fold_models = [trained(dataset, member, out, frames)[0] for member in folds]
    heard = [TrackWindows([frames[i] for i in fold.split.valid], features) for fold in folds]
    by_fold = [x.logits(model.predict_on_batch) for x, model in zip(heard, fold_models, strict=True)]
    held_out = []
    for k, fold in enumerate(folds):  # each calibrated by the others, so that it is held out in that, too
        rest = [(other, i) for other in range(COUNT) if other != k for i in range(len(by_fold[other]))]
        rest_truth = np.array([genres.index(genre_of[folds[other].split.valid[i]]) for other, i in rest])
        fitted = Confidence.fit(
            familiar_windows([frames[i] for i in fold.split.train], features),
            [heard[other].tracks[i] for other, i in rest],
            [by_fold[other][i] for other, i in rest],
            rest_truth,
        )
        held_out += told(fitted, fold.split.valid, heard[k].tracks, by_fold[k], genres, genre_of)
    card = {
        "genres": list(genres),
        "confidence": confidence.to_dict()
        | {"fitted_on": f"{len(split.valid)} validation tracks, by networks that, as their teachers, never heard them"},
        "seeds": [{name: run[name] for name in ("accuracy", "macro_f1", "log_loss")} for run in runs],
    }
    by_stand_in, by_folds = evaluate.score(rows, genres), evaluate.score(held_out, genres)
    sides = {side: list(ids) for side, ids in split.sides().items()}
    results = {"metrics": {"valid": by_stand_in}, "predictions": {"valid": rows}}
    data = {"data": data_of(dataset, split, sides), "about": about_stand_in(by_stand_in)}
    write(out / "gtzan-valid", card | results | data, stand_ins, stand_in_histories, stand_in)

    sides |= {"train": sides["train"] + sides["valid"], "valid": []}
    results = {
        "metrics": {"stand_in": by_stand_in, "folds": by_folds},
        "predictions": {"stand_in": rows, "folds": held_out},
    }
    data = {"data": data_of(dataset, split, sides), "about": about(by_stand_in, by_folds)}
    models, histories = zip(*(trained(dataset, x, out, frames) for x in students), strict=True)
    write(out / "gtzan", card | results | data, students, histories, to_int8(together(students, models), ranges))


def write(
    bundle: Path,
    card: dict[str, Any],
    members: list[Member],
    histories: Sequence[list[dict[str, float]]],
    network: bytes,
) -> None:
    """A bundle of several networks in one, with its pictures."""
    from musicclass.training import evaluate
    from musicclass.training.model import build_model
    from musicclass.training.train import versions

    config, genres = members[0].config, tuple(card["genres"])
    one = build_model(config.model, config.features.n_mfcc, len(genres))
    history = [mean_row(epoch) for epoch in zip(*histories, strict=True)]
    what = {
        "name": bundle.name,
        "config": to_dict(replace(config, model=replace(config.model, members=len(members)))),
        "parameters": len(members) * one.count_params(),
        "history": history,
        "versions": versions(),
    }
    evaluate.write_history(bundle / "history.csv", history)
    plots.save(plots.history(history, "mean of the networks"), bundle / "history.png")
    side = judged_side(card)
    plots.evaluation(bundle, genres, card["metrics"][side], f"{bundle.name}, {SIDE_NAMES[side]} tracks")
    save_bundle(bundle, network, what | card)
    print(card["about"], f"{bundle} written", sep="\n")


def trained(
    dataset: Dataset, member: Member, out: Path, frames: dict[str, Array] | None = None
) -> tuple[keras.Model, list[dict[str, float]]]:
    """A network and its history, from its checkpoint where it has one; `frames`, where they are at hand already."""
    from musicclass.training.data import load_frames
    from musicclass.training.export import runner
    from musicclass.training.train import fit

    split, config, genres = member.split, member.config, dataset.genres
    frames = frames or load_frames(dataset, (*split.train, *split.valid), config.features)
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    checkpoint = out / member.name / "checkpoint.npz"
    teacher = runner(member.teacher.read_bytes()) if member.teacher else None
    model, progress = fit(frames, labels, list(split.train), list(split.valid), genres, config, checkpoint, teacher)
    return model, progress.history


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


def mean_row(rows: tuple[dict[str, float], ...]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def about_stand_in(valid: dict[str, Any]) -> str:
    from musicclass.training.evaluate import in_words

    return (
        "Two networks in one, which learnt from five that were trained on the training tracks of GTZAN's filtered "
        f"split. Right on {in_words(valid)} for validation, by which its settings were chosen."
    )


def about(stand_in: dict[str, Any], folds: dict[str, Any]) -> str:
    from musicclass.training.evaluate import in_words

    return (
        "Two networks in one, which learnt from five that were trained on the training and validation tracks of "
        "GTZAN's filtered split. A stand-in, made alike from the training tracks alone, is right on "
        f"{in_words(stand_in)} for validation; the five teachers, each by itself, on {in_words(folds)} "
        "of artists they had not heard. "
        "The result on the test tracks is still to come."
    )


if __name__ == "__main__":
    main()
