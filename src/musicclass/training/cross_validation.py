"""Cross-validation: networks are evaluated, and models calibrated, on tracks that the networks weren't trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.config import Config, to_dict
from musicclass.datasets import Dataset, Track
from musicclass.datasets.splits import Split, artist_kfold
from musicclass.errors import DatasetError
from musicclass.evaluation.evaluate import Record, compute_metrics, write_predictions
from musicclass.features import Array
from musicclass.files import write_text
from musicclass.prediction import UNKNOWN, is_in_distribution
from musicclass.progress import ProgressFn, no_progress
from musicclass.saved_model import PREDICTIONS
from musicclass.training.batches import LabelledTracks, WindowedTracks, mean_logits
from musicclass.training.calibration import Calibrator, artist_folds, fit_branch_weights
from musicclass.training.ood import FeatureOodScorer, Floats, Ints
from musicclass.training.trainer import Monitor, Trained, train_networks

METRICS = "metrics.json"
WORK = "work"  # folder with the state of training


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Outputs for held-out tracks of networks that weren't trained on them."""

    tracks: tuple[Track, ...]
    labels: Ints  # (n_tracks,)
    logits: dict[str, list[Array]]  # branch -> (n_windows, n_genres) for each track
    distances: list[Floats]  # (n_windows,) for each track, by `ood`
    ood: FeatureOodScorer  # fitted to the networks' training tracks
    excluded: HeldOut | None = None  # tracks of a genre that is in no fold


def cross_validate(
    config: Config,
    tracks: LabelledTracks,
    folds: Sequence[Split],
    work: Path,
    monitor: Monitor,
    excluded: LabelledTracks | None = None,
) -> list[HeldOut]:
    """Train on each fold's `train` tracks, below `work`, and predict its `valid` tracks and those of `excluded`."""
    results = []
    for i, fold in enumerate(folds, 1):
        training, heldout = tracks.subset(fold.train, "training"), tracks.subset(fold.valid, "evaluation")
        here = monitor._replace(prefix=f"fold {i} of {len(folds)}: ")
        networks = train_networks(config, training, heldout, work / f"fold-{i}", here)
        result = predict_heldout(networks, training, heldout, config)
        if excluded:
            other = predict_heldout(networks, training, excluded, config, result.ood)
            result = replace(result, excluded=other)
        results.append(result)
    return results


def predict_heldout(
    networks: Mapping[str, Sequence[Trained]],
    training: LabelledTracks,
    heldout: LabelledTracks,
    config: Config,
    ood: FeatureOodScorer | None = None,
) -> HeldOut:
    """The outputs of `networks`, by branch, for held-out tracks; their feature distance is by `ood`, or fitted."""
    windows = WindowedTracks.of(heldout, config.features)
    if ood is None:
        ood = FeatureOodScorer.fit(WindowedTracks.with_comb_filter(training, config.features).windows, windows.windows)
    logits = {}
    for branch, members in networks.items():
        outputs = [windows.predict(each.network.predict_on_batch) for each in members]
        logits[branch] = [np.mean(rows, axis=0) for rows in zip(*outputs, strict=True)]
    distances = [ood.distance(each) for each in windows.windows]
    return HeldOut(heldout.tracks, heldout.labels, logits, distances, ood)


def calibrate(heldout: Sequence[HeldOut], ood: FeatureOodScorer) -> tuple[dict[str, float], Calibrator]:
    """Branch weights, with the sum 1, and the calibrator, fitted to held-out tracks of one or more folds."""
    labels = np.concatenate([fold.labels for fold in heldout])
    if len(heldout) == 1:
        folds = artist_folds(heldout[0].tracks)
    else:
        folds = np.repeat(np.arange(len(heldout)), [len(fold.tracks) for fold in heldout])
    logits = {branch: [x for fold in heldout for x in fold.logits[branch]] for branch in heldout[0].logits}
    fitted = fit_branch_weights([mean_logits(x) for x in logits.values()], labels)
    weights = dict(zip(logits, fitted.tolist(), strict=True))
    distances = [x for fold in heldout for x in fold.distances]
    return weights, Calibrator.fit(ood, distances, combine_branches(logits, weights), labels, folds)


def combine_branches(logits: Mapping[str, Sequence[Array]], weights: Mapping[str, float]) -> list[Array]:
    """The weighted sum of the branches' logits, for each track."""
    parts = [[weights[branch] * x for x in by_track] for branch, by_track in logits.items()]
    return [np.sum(rows, axis=0) for rows in zip(*parts, strict=True)]


def mean_scale(heldout: Sequence[HeldOut]) -> float:
    """The scale of the feature distance, which needs held-out tracks: the mean over folds."""
    return float(np.mean([fold.ood.scale for fold in heldout]))


def evaluate_folds(heldout: Sequence[HeldOut], genres: Sequence[str]) -> list[Record]:
    """The records of all held-out tracks; each fold is calibrated on the others."""
    return [record for fold in heldout for record in _records(fold, fold, heldout, genres)]


def _records(tracks: HeldOut, fold: HeldOut, heldout: Sequence[HeldOut], genres: Sequence[str]) -> list[Record]:
    """The records of tracks predicted by the networks of a fold, calibrated on the other folds."""
    others = [other for other in heldout if other is not fold]
    scale = mean_scale(others)
    weights, calibrator = calibrate(others, replace(fold.ood, scale=scale))
    logits, records = combine_branches(tracks.logits, weights), []
    for track, x, distance in zip(tracks.tracks, logits, tracks.distances, strict=True):
        scores = calibrator.score(x, distance * (fold.ood.scale / scale))
        i = int(scores.probabilities.argmax())
        confidence, familiarity = float(scores.probabilities[i]), scores.familiarity
        predicted = genres[i] if is_in_distribution(familiarity, confidence, None) else UNKNOWN
        probabilities = dict(zip(genres, scores.probabilities.tolist(), strict=True))
        records.append(Record(track.id, track.artist, track.genre, predicted, confidence, familiarity, probabilities))
    return records


def excluded_auroc(heldout: Sequence[HeldOut], records: Sequence[Record], genres: Sequence[str]) -> float:
    """AUROC of familiarity: held-out tracks, by their `records`, against the excluded genre's; the mean over folds."""
    from sklearn.metrics import roc_auc_score

    familiarity, aurocs = {record.track: record.familiarity for record in records}, []
    for fold in heldout:
        assert fold.excluded is not None
        known = [familiarity[track.id] for track in fold.tracks]
        unknown = [record.familiarity for record in _records(fold.excluded, fold, heldout, genres)]
        aurocs.append(roc_auc_score([1] * len(known) + [0] * len(unknown), [*known, *unknown]))
    return float(np.mean(aurocs))


@dataclass(frozen=True)
class Result:
    """The result of `run`."""

    records: list[Record]
    metrics: dict[str, dict[str, Any]]  # of the architecture and, where it has several, of each branch alone
    branch_weights: dict[str, float]  # fitted to all folds
    genres: tuple[str, ...]  # without the excluded one
    auroc: float | None = None  # of familiarity, for the excluded genre


def run(
    dataset: Dataset,
    ids: Sequence[str],
    n_folds: int,
    by_artist: bool,
    config: Config,
    out: Path,
    resume: bool = False,
    monitor: Monitor | None = None,
    progress: ProgressFn = no_progress,
    leave_out: str | None = None,
) -> Result:
    """Cross-validate on the tracks `ids`, and write predictions.csv and metrics.json into the folder `out`.

    With `leave_out`, a genre, its tracks are in no fold, but every fold predicts them: is their familiarity lower?
    Raises DatasetError when `out` has these files already, there are too few artists, or there is no such genre.
    """
    prepare_folder(out, METRICS, resume)
    excluded = None
    if leave_out is not None:
        dataset, of_genre = _exclude(dataset, leave_out)
        excluded = LabelledTracks.load(of_genre, ids, config.features, progress)
    tracks = LabelledTracks.load(dataset, ids, config.features, progress)
    grouped = tracks.tracks if by_artist else [replace(track, artist=track.id) for track in tracks.tracks]
    folds = artist_kfold(grouped, n_folds)
    heldout = cross_validate(config, tracks, folds, out / WORK, monitor or Monitor(), excluded)
    records = evaluate_folds(heldout, dataset.genres)
    metrics = {config.model.architecture: compute_metrics(records, dataset.genres)}
    weights, _ = calibrate(heldout, heldout[0].ood)
    for branch in weights if len(weights) > 1 else ():
        alone = [replace(fold, logits={branch: fold.logits[branch]}) for fold in heldout]
        metrics[branch] = compute_metrics(evaluate_folds(alone, dataset.genres), dataset.genres)
    write_predictions(out / PREDICTIONS, {"cv": records}, dataset.genres)
    auroc = excluded_auroc(heldout, records, dataset.genres) if excluded else None
    content: dict[str, Any] = {"config": to_dict(config), "branch_weights": weights, "metrics": metrics}
    content |= {"excluded": {"genre": leave_out, "auroc_of_familiarity": auroc}} if excluded else {}
    write_text(out / METRICS, json.dumps(content, indent=1) + "\n")
    shutil.rmtree(out / WORK)
    return Result(records, metrics, weights, dataset.genres, auroc)


def _exclude(dataset: Dataset, genre: str) -> tuple[Dataset, Dataset]:
    """The data set without a genre, and that genre alone."""
    if genre not in dataset.genres:
        raise DatasetError(f"{dataset.name} has no genre {genre!r}; it has {', '.join(dataset.genres)}")
    if len(dataset.genres) < 3:
        raise DatasetError(f"{dataset.name} needs at least two other genres than {genre}")
    others, of_genre = (
        tuple(track for track in dataset.tracks if (track.genre == genre) is excluded) for excluded in (False, True)
    )
    return replace(dataset, tracks=others), replace(dataset, tracks=of_genre)


def prepare_folder(out: Path, result: str, resume: bool) -> None:
    """Raise DatasetError when `out` has its `result` already, or, without `resume`, the state of an interrupted run."""
    if (out / result).exists():
        raise DatasetError(f"{out / result} exists already; choose another --out, or delete it first")
    if not resume and (out / WORK).exists():
        raise DatasetError(f"{out} has an interrupted run; continue it with --resume, or delete {out / WORK}")
