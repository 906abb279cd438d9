"""Train the model that ships, from GTZAN's features to the bundle: python scripts/train_pretrained.py ARCHIVE.npz OUT

Ten networks are trained, each on one core, as many at once as --jobs says:

- five seeds on the training tracks of the filtered split; together they predict the validation tracks,
  which none of them saw. From that come the calibration, the threshold for "unknown", and the metrics "valid".
- five folds of training and validation tracks together, by artist. Each predicts the tracks it never saw, which
  gives the metrics "folds"; the five together, as one network, are the model.

OUT keeps every network's checkpoint: the same command goes on where it was broken off. The test tracks are
not touched. Keras runs on torch where that is installed (twice as fast here), else on TensorFlow; exporting
needs TensorFlow. Further settings: --set training.epochs=20.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicclass import plots
from musicclass.bundle import SIDE_NAMES, save_bundle
from musicclass.confidence import Confidence
from musicclass.config import Config, load_config, to_dict, with_seed
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
    seeds = [Member(f"seed-{i}", split, c) for i, c in enumerate(seeded, 1)]
    fold_members = [Member(f"fold-{i}", fold, c) for i, (fold, c) in enumerate(zip(folds, seeded, strict=True), 1)]
    fit_all([*seeds, *fold_members], options.archive, options.out, options.jobs)
    finish(dataset, split, config, seeds, fold_members, options.out)


def prepare() -> None:
    """One thread for each process, and memory that isn't handed back after every step: half the time."""
    backend = "torch" if importlib.util.find_spec("torch") else "tensorflow"
    os.environ.setdefault("KERAS_BACKEND", backend)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))  # glibc reads these when a process starts
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))


def fit_all(members: list[Member], archive: Path, out: Path, jobs: int) -> None:
    """Train what isn't trained yet; shows epochs done, of all."""
    total = sum(member.config.training.epochs for member in members)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool, progress_bar() as bar:
        running = [pool.submit(fit_member, member, archive, out / member.name) for member in members]
        task = bar.add_task("Epochs", total=total)
        try:
            while not all(future.done() for future in running):
                bar.update(task, completed=sum(epochs_done(out / member.name / "log.txt") for member in members))
                if failed := [future for future in running if future.done() and future.exception()]:
                    failed[0].result()
                time.sleep(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            print(f"stopped; the same command goes on where {out} is", file=sys.stderr)
            raise
        for future in running:
            future.result()


def epochs_done(log: Path) -> int:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return int(lines[-1].split("/")[0].removeprefix("epoch ")) if lines else 0


def fit_member(member: Member, archive: Path, folder: Path) -> None:
    """Train one network, in a process of its own; its last lines on stderr go into log.txt."""
    from musicclass.training.train import fit

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8", buffering=1) as log, contextlib.redirect_stderr(log):
        fit(*material(open_dataset(archive), member), folder / "checkpoint.npz")


def material(dataset: Dataset, member: Member) -> tuple[Any, ...]:
    """What `fit` takes: frames, labels, ids to train on and to judge by, genres, configuration."""
    from musicclass.training.data import load_frames

    split, genres = member.split, dataset.genres
    frames = load_frames(dataset, (*split.train, *split.valid), member.config.features)
    labels = {track.id: genres.index(track.genre) for track in dataset.tracks}
    return frames, labels, list(split.train), list(split.valid), genres, member.config


def finish(dataset: Dataset, split: Split, config: Config, seeds: list[Member], folds: list[Member], out: Path) -> None:
    """From the trained networks to the bundle."""
    from musicclass.training import evaluate, train
    from musicclass.training.data import TrackWindows
    from musicclass.training.export import to_onnx
    from musicclass.training.model import ensemble

    def windows(frames: dict[str, Array], ids: tuple[str, ...]) -> TrackWindows:
        return TrackWindows([frames[i] for i in ids], config.features)

    genres = dataset.genres
    genre_of = {track.id: track.genre for track in dataset.tracks}
    truth = np.array([genres.index(genre_of[i]) for i in split.valid])
    frames: dict[str, Array] = material(dataset, seeds[0])[0]
    learnt, valid = windows(frames, split.train), windows(frames, split.valid)

    models, histories = zip(*(trained(dataset, member, out) for member in [*seeds, *folds]), strict=True)
    by_seed = [valid.logits(model.predict_on_batch) for model in models[:COUNT]]
    together = [np.mean(rows, axis=0) for rows in zip(*by_seed, strict=True)]
    confidence = Confidence.fit(learnt.tracks, valid.tracks, together, truth)
    rows = {"valid": told(confidence, split.valid, valid, together, genres, genre_of), "folds": []}
    singly = Confidence.fit(learnt.tracks, valid.tracks, by_seed[0], truth)
    for member, model in zip(folds, models[COUNT:], strict=True):
        held_out = windows(frames, member.split.valid)
        logits = held_out.logits(model.predict_on_batch)
        rows["folds"] += told(singly, member.split.valid, held_out, logits, genres, genre_of)

    config = replace(config, model=replace(config.model, members=COUNT))
    model = ensemble(config.model, config.features.n_mfcc, len(genres), [m.get_weights() for m in models[COUNT:]])
    sides = {"train": [*split.train, *split.valid], "valid": [], "test": list(split.test)}
    history = [mean_row(epoch) for epoch in zip(*histories[COUNT:], strict=True)]
    metrics = {side: evaluate.score(found, genres) for side, found in rows.items()}
    alone = [evaluate.score(told(singly, split.valid, valid, logits, genres, genre_of), genres) for logits in by_seed]
    card = {
        "name": "gtzan",
        "about": about(metrics),
        "genres": list(genres),
        "config": to_dict(config),
        "data": train.data_of(dataset, split, sides),
        "versions": train.versions(),
        "parameters": model.count_params(),
        "history": history,
        "confidence": confidence.to_dict()
        | {"fitted_on": f"{len(split.valid)} validation tracks, by five networks that were trained without them"},
        "seeds": [{name: m[name] for name in ("accuracy", "macro_f1", "log_loss")} for m in alone],
        "metrics": metrics,
        "predictions": rows,
    }
    network = to_onnx(model, config.model, config.features.n_mfcc, len(genres))
    bundle = out / "gtzan"
    evaluate.write_history(bundle / "history.csv", history)
    plots.save(plots.history(history, "mean of the five networks"), bundle / "history.png")
    plots.evaluation(bundle, genres, metrics["folds"], f"gtzan, {SIDE_NAMES['folds']} tracks")
    save_bundle(bundle, network, card)
    print(card["about"], f"{bundle} written", sep="\n")


def trained(dataset: Dataset, member: Member, out: Path) -> tuple[keras.Model, list[dict[str, float]]]:
    """A network that `fit_all` trained, and its history."""
    from musicclass.training.train import fit

    model, progress = fit(*material(dataset, member), out / member.name / "checkpoint.npz")
    return model, progress.history


def told(
    confidence: Confidence,
    ids: tuple[str, ...],
    windows: Any,
    logits: list[Array],
    genres: tuple[str, ...],
    genre_of: dict[str, str],
) -> list[dict[str, Any]]:
    """Rows as of `predict_tracks`, for networks that are no bundle of their own."""
    rows = []
    for name, heard, scores in zip(ids, windows.tracks, logits, strict=True):
        found = confidence.track(heard, scores)
        best = genres[int(found.probabilities.argmax())]
        rows.append(
            {
                "track": name,
                "genre": genre_of[name],
                "told": best if found.confidence >= confidence.min_confidence else UNKNOWN,
                "confidence": round(found.confidence, 6),
                "probabilities": found.probabilities.round(6).tolist(),
            }
        )
    return rows


def mean_row(rows: tuple[dict[str, float], ...]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def about(metrics: dict[str, Any]) -> str:
    valid, folds = (
        "{:.1%} of {} tracks (95% interval {:.1%} to {:.1%})".format(m["accuracy"], m["tracks"], *m["accuracy_95"])
        for m in (metrics["valid"], metrics["folds"])
    )
    return (
        "Five networks in one, trained on the training and validation tracks of GTZAN's filtered split. "
        f"Five such networks, trained on the training tracks alone, were together right on {valid} for validation; "
        f"the five that ship, each by itself, on {folds} of artists they had not heard. "
        "The result on the test tracks is still to come."
    )


if __name__ == "__main__":
    main()
