"""Train the model that ships, from GTZAN's features to the bundle: python scripts/train_pretrained.py ARCHIVE.npz OUT

Ten networks are trained, each on one core, as many at once as --jobs says:

- five seeds on the training tracks of the filtered split; together they predict the validation tracks,
  which none of them saw (OUT/gtzan-valid). From that come the calibration, the threshold for "unknown", and the
  metrics "valid".
- five folds of training and validation tracks together, by artist. Each predicts the tracks it never saw, which
  gives the metrics "folds"; the five together, as one network, are the model, OUT/gtzan.

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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicclass import plots
from musicclass.bundle import SIDE_NAMES, judged_side, save_bundle
from musicclass.confidence import Confidence
from musicclass.config import Config, from_dict, load_config, to_dict, with_seed
from musicclass.datasets import Dataset, open_dataset
from musicclass.datasets.splits import Split, artist_folds, make_split
from musicclass.features import Array
from musicclass.prediction import UNKNOWN
from musicclass.printing import progress_bar

if TYPE_CHECKING:
    import keras

COUNT = 5
SPLIT = "filtered"


@dataclass(frozen=True)
class Member:
    """One network to be trained."""

    name: str
    archive: Path
    split: Split
    config: Config


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
    fit_all([*seeds, *fold_members], options.out, options.jobs)
    finish(dataset, split, config, seeds, fold_members, options.out)


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


def finish(dataset: Dataset, split: Split, config: Config, seeds: list[Member], folds: list[Member], out: Path) -> None:
    """From the trained networks to two bundles: OUT/gtzan, which ships, and OUT/gtzan-valid, which can be tried on the
    validation tracks, as none of its networks trained on them."""
    from musicclass.training import evaluate
    from musicclass.training.data import TrackWindows, familiar_windows, load_frames

    genres = dataset.genres
    genre_of = {track.id: track.genre for track in dataset.tracks}
    truth = np.array([genres.index(genre_of[i]) for i in split.valid])
    frames = load_frames(dataset, (*split.train, *split.valid), config.features)
    learnt = familiar_windows([frames[i] for i in split.train], config.features)
    valid = TrackWindows([frames[i] for i in split.valid], config.features)

    seed_models, seed_histories = zip(*(trained(dataset, member, out, frames) for member in seeds), strict=True)
    by_seed = [valid.logits(model.predict_on_batch) for model in seed_models]
    together = [np.mean(rows, axis=0) for rows in zip(*by_seed, strict=True)]
    confidence = Confidence.fit(learnt, valid.tracks, together, truth)
    rows = told(confidence, split.valid, valid.tracks, together, genres, genre_of)
    plain = Confidence()
    runs = [evaluate.score(told(plain, split.valid, valid.tracks, x, genres, genre_of), genres) for x in by_seed]

    fold_models, fold_histories = zip(*(trained(dataset, member, out, frames) for member in folds), strict=True)
    heard = [TrackWindows([frames[i] for i in fold.split.valid], config.features) for fold in folds]
    by_fold = [x.logits(model.predict_on_batch) for x, model in zip(heard, fold_models, strict=True)]
    held_out = []
    for k, fold in enumerate(folds):  # each calibrated by the others, so that it is held out in that, too
        rest = [(other, i) for other in range(COUNT) if other != k for i in range(len(by_fold[other]))]
        rest_truth = np.array([genres.index(genre_of[folds[other].split.valid[i]]) for other, i in rest])
        fitted = Confidence.fit(
            familiar_windows([frames[i] for i in fold.split.train], config.features),
            [heard[other].tracks[i] for other, i in rest],
            [by_fold[other][i] for other, i in rest],
            rest_truth,
        )
        held_out += told(fitted, fold.split.valid, heard[k].tracks, by_fold[k], genres, genre_of)
    card = {
        "genres": list(genres),
        "config": to_dict(replace(config, model=replace(config.model, members=COUNT))),
        "confidence": confidence.to_dict()
        | {"fitted_on": f"{len(split.valid)} validation tracks, by five networks that were trained without them"},
        "seeds": [{name: run[name] for name in ("accuracy", "macro_f1", "log_loss")} for run in runs],
    }
    by_stand_in, by_folds = evaluate.score(rows, genres), evaluate.score(held_out, genres)
    sides = {side: list(ids) for side, ids in split.sides().items()}
    results = {"metrics": {"valid": by_stand_in}, "predictions": {"valid": rows}}
    write(
        out / "gtzan-valid",
        card | results,
        about_stand_in(by_stand_in),
        dataset,
        split,
        sides,
        seed_models,
        seed_histories,
    )
    sides |= {"train": sides["train"] + sides["valid"], "valid": []}
    results = {
        "metrics": {"stand_in": by_stand_in, "folds": by_folds},
        "predictions": {"stand_in": rows, "folds": held_out},
    }
    write(
        out / "gtzan", card | results, about(by_stand_in, by_folds), dataset, split, sides, fold_models, fold_histories
    )


def write(
    bundle: Path,
    card: dict[str, Any],
    description: str,
    dataset: Dataset,
    split: Split,
    sides: dict[str, list[str]],
    models: tuple[keras.Model, ...],
    histories: tuple[list[dict[str, float]], ...],
) -> None:
    """A bundle of several networks in one, with its pictures."""
    from musicclass.training import evaluate, train
    from musicclass.training.export import to_onnx
    from musicclass.training.model import ensemble

    config = from_dict(Config, card["config"])
    n_mfcc, genres = config.features.n_mfcc, tuple(card["genres"])
    model = ensemble(config.model, n_mfcc, len(genres), [model.get_weights() for model in models])
    history = [mean_row(epoch) for epoch in zip(*histories, strict=True)]
    data = {"data": train.data_of(dataset, split, sides), "versions": train.versions()}
    what = {"name": bundle.name, "about": description, "parameters": model.count_params(), "history": history}
    evaluate.write_history(bundle / "history.csv", history)
    plots.save(plots.history(history, "mean of the five networks"), bundle / "history.png")
    side = judged_side(card)
    plots.evaluation(bundle, genres, card["metrics"][side], f"{bundle.name}, {SIDE_NAMES[side]} tracks")
    save_bundle(bundle, to_onnx(model, config.model, n_mfcc, len(genres)), what | data | card)
    print(description, f"{bundle} written", sep="\n")


def trained(
    dataset: Dataset, member: Member, out: Path, frames: dict[str, Array] | None = None
) -> tuple[keras.Model, list[dict[str, float]]]:
    """A network and its history, from its checkpoint where it has one; `frames`, where they are at hand already."""
    from musicclass.training.data import load_frames
    from musicclass.training.train import fit

    split, config, genres = member.split, member.config, dataset.genres
    frames = frames or load_frames(dataset, (*split.train, *split.valid), config.features)
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    checkpoint = out / member.name / "checkpoint.npz"
    model, progress = fit(frames, labels, list(split.train), list(split.valid), genres, config, checkpoint)
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
        "Five seeds in one, trained on the training tracks of GTZAN's filtered split. "
        f"Right on {in_words(valid)} for validation, by which its settings were chosen."
    )


def about(stand_in: dict[str, Any], folds: dict[str, Any]) -> str:
    from musicclass.training.evaluate import in_words

    return (
        "Five networks in one, trained on the training and validation tracks of GTZAN's filtered split. "
        f"A stand-in, five such networks trained on the training tracks alone, is right on {in_words(stand_in)} for "
        f"validation; the five that ship, each by itself, on {in_words(folds)} of artists they had not heard. "
        "The result on the test tracks is still to come."
    )


if __name__ == "__main__":
    main()
