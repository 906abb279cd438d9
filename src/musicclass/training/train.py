"""Data set and split -> saved model: train, calibrate, export, evaluate."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musicclass import plots, saved_model
from musicclass.classifier import Classifier
from musicclass.config import Config, to_dict
from musicclass.datasets import Dataset
from musicclass.datasets.splits import Split, check_leakage
from musicclass.errors import DatasetError
from musicclass.evaluation.evaluate import Record, compute_metrics, evaluate_tracks, write_predictions
from musicclass.evaluation.report import Evaluation, summarize_accuracy
from musicclass.files import write_text
from musicclass.progress import ProgressFn, no_progress
from musicclass.saved_model import BASE_MODEL, SUBSET_NAMES, SavedModel, best_available_metrics, save_model
from musicclass.training import cross_validation
from musicclass.training.browser_graph import build_browser_graphs
from musicclass.training.cross_validation import Calibration, evaluate_records
from musicclass.training.graph import build_model
from musicclass.training.networks import Monitor, Trained, train_networks
from musicclass.training.ood import FeatureOodScorer
from musicclass.training.tagger_head import TaggerHead, fit_tagger_head
from musicclass.training.tracks import LabelledTracks, WindowedTracks

NETWORK_NAMES = {
    "cnn_lstm": "CNN-LSTM",
    "lda": "LDA",
    "baseline": "baseline CNN-LSTM",
    "frozen": f"a classifier of the CNN-LSTM of {BASE_MODEL}",
    "tagger": "a classifier of musicnn's embeddings",
}
QUANTIZATION_STEP = 4  # every so many of the training windows are used for the ranges of int8


@dataclass(frozen=True, eq=False)
class Fitted:
    """Trained and calibrated networks."""

    training: LabelledTracks
    networks: dict[str, list[Trained]]  # by branch
    head: TaggerHead | None
    calibration: Calibration
    calibration_data: str  # in words
    cv: list[Record]  # of cross-validation; empty without
    branches_alone: dict[str, dict[str, Any]]  # branch -> its metrics in cross-validation; empty without, or for one

    @property
    def history(self) -> list[dict[str, float]]:
        """Epoch by epoch, the mean over the networks of the first branch; empty for LDA alone."""
        epochs = zip(*(each.history for each in next(iter(self.networks.values()))), strict=True)
        return [{name: np.mean([row[name] for row in rows]).item() for name in rows[0]} for rows in epochs]


def train(
    dataset: Dataset,
    split: Split,
    config: Config,
    out: Path,
    name: str = "",
    resume: bool = False,
    monitor: Monitor | None = None,
    progress: ProgressFn = no_progress,
) -> SavedModel:
    """Train on `dataset` by `split`, and write the model, its tables and its plots into the folder `out`.

    Validation tracks calibrate the model. With `training.calibration_folds`, validation tracks are training tracks as
    well, and the held-out tracks of cross-validation calibrate it. With `resume`, an interrupted run in `out` is
    continued. Files that can't be used are skipped with a warning. Raises DatasetError when `out` is taken, or tracks
    or settings don't fit, LeakError when a track or a replica of it is in two subsets.
    """
    cross_validation.prepare_folder(out, saved_model.CARD, resume)
    split = _check_split(split, dataset, config)
    tracks = LabelledTracks.load(dataset, (*split.train, *split.valid), config, progress)
    subsets = {
        subset: tuple(i for i in ids if subset == "test" or i in tracks.features)
        for subset, ids in split.subsets().items()
    }
    fitted = fit(tracks, split, config, out / cross_validation.WORK, monitor or Monitor())
    n_parameters, model, backbone = _export(fitted, config)
    card: dict[str, Any] = {
        "name": name or out.resolve().name,
        "summary": "",
        "genres": list(dataset.genres),
        "config": to_dict(config),
        "members": _members(fitted, config),
        "data": {
            "name": dataset.name,
            "warnings": list(dataset.warnings),
            "split_name": split.name,
            "split_seed": split.seed,
            "counts": {subset: len(ids) for subset, ids in subsets.items()},
        },
        "calibration": {
            "data": fitted.calibration_data,
            "branch_weights": fitted.calibration.weights,
            "branches_alone": {
                branch: {name: metrics[name] for name in ("accuracy", "macro_recall", "log_loss")}
                for branch, metrics in fitted.branches_alone.items()
            },
            "temperature": fitted.calibration.calibrator.temperature,
            "biases": fitted.calibration.calibrator.biases.tolist(),
        },
        "metrics": {},
        "parameters": n_parameters,
        "versions": versions(config),
    }
    records = _evaluate(card, model, fitted, dataset, subsets, progress)
    card["summary"] = _summary(card)
    _write_tables_and_plots(out, card, fitted, dataset, subsets, records)
    frontend, pooling = build_browser_graphs(config.features, config.model.uses_tagger)
    saved = save_model(out, model, frontend, card, pooling, backbone)  # last, so a card means a complete model
    shutil.rmtree(out / cross_validation.WORK, ignore_errors=True)
    return saved


def _check_split(split: Split, dataset: Dataset, config: Config) -> Split:
    """The split, whose validation tracks are training tracks where calibration is by folds."""
    check_leakage(split, dataset.tracks, artists=False)
    if config.training.calibration_folds:
        return replace(split, train=(*split.train, *split.valid), valid=())
    if not split.valid:
        raise DatasetError(
            f"split {split.name} has no validation tracks; calibrate with --set training.calibration_folds=5, "
            "or choose another --split"
        )
    return split


def fit(tracks: LabelledTracks, split: Split, config: Config, work: Path, monitor: Monitor) -> Fitted:
    """Train on the `train` tracks of a split; calibrate by folds of them, or on the `valid` tracks."""
    training = tracks.subset(split.train, "training")
    head = fit_tagger_head(training, config) if config.model.uses_tagger else None
    if not config.training.calibration_folds:
        valid = tracks.subset(split.valid, "validation")
        networks = train_networks(config, training, valid, work, monitor)
        heldout = cross_validation.predict_heldout(networks, head, training, valid, config)
        calibration = cross_validation.calibrate([heldout], config, heldout.ood, heldout.embedding_ood)
        return Fitted(training, networks, head, calibration, f"{len(valid)} validation tracks", [], {})
    folds, by = cross_validation.calibration_folds(training.tracks, config.training.calibration_folds)
    by_fold = cross_validation.cross_validate(config, training, folds, work, monitor)
    cv = cross_validation.evaluate_folds(by_fold, training.genres, config)
    networks = train_networks(config, training, None, work, monitor)
    windows = WindowedTracks.with_comb_filter(training, config.features).windows
    ood = FeatureOodScorer.fit(windows, windows)
    ood, embedding_ood = replace(ood, scale=cross_validation.common_scale(by_fold)), None
    if head:
        embedding_ood = cross_validation.embedding_scorer(training)
    calibration = cross_validation.calibrate(by_fold, config, ood, embedding_ood)
    data = f"{len(cv)} held-out tracks of {len(folds)} folds by {by}"
    alone = cross_validation.branch_metrics(by_fold, calibration.weights, training.tracks, training.genres, config)
    return Fitted(training, networks, head, calibration, data, cv, alone)


def _export(fitted: Fitted, config: Config) -> tuple[int, bytes, bytes]:
    """The number of parameters, model.onnx, and backbone.onnx, which is empty without CNN-LSTMs."""
    if config.model.uses_keras:
        n_parameters, network, backbone = _export_keras(fitted, config)
    else:
        frozen = fitted.networks["frozen"][0].network
        n_parameters, network = frozen.count_params(), frozen.to_onnx(fitted.calibration.weights["frozen"])
        backbone = b""
    model = build_model(network, fitted.calibration, fitted.head, config.features, fitted.training.genres)
    return n_parameters, model, backbone


def _export_keras(fitted: Fitted, config: Config) -> tuple[int, bytes, bytes]:
    """The number of parameters, all networks as one, and the backbone of the CNN-LSTMs."""
    from musicclass.training.ensemble import build_backbone, build_ensemble
    from musicclass.training.export import quantize_int8, to_onnx

    networks = {branch: [each.network for each in members] for branch, members in fitted.networks.items()}
    ensemble = build_ensemble(networks, fitted.calibration.weights)
    network = to_onnx(ensemble)
    if config.training.quantize and config.model.architecture != "lda":
        windows = WindowedTracks.of(fitted.training, config.features).windows
        full = [each for each in windows if each.shape[1] == config.features.window_frames]
        network = quantize_int8(network, np.concatenate(full or windows[:1])[::QUANTIZATION_STEP])
    backbone = to_onnx(build_backbone(networks["cnn_lstm"]), "features") if "cnn_lstm" in networks else b""
    return ensemble.count_params(), network, backbone


def _members(fitted: Fitted, config: Config) -> list[dict[str, Any]]:
    members = [_member(each, config) for trained in fitted.networks.values() for each in trained]
    if fitted.head:
        members.append({"architecture": "tagger", "c": fitted.head.c, "expert": config.model.tagger_expert})
    return members


def _member(trained: Trained, config: Config) -> dict[str, Any]:
    """What has to be known to train this network again, beside the model's configuration."""
    model, training = trained.config.model, trained.config.training
    if model.architecture == "frozen":
        digest = hashlib.sha256(trained.network.backbone).hexdigest()
        return {"architecture": "frozen", "c": trained.network.c, "backbone": BASE_MODEL, "backbone_sha256": digest}
    member = {"architecture": model.architecture, "seed": training.seed}
    if model.architecture == "cnn_lstm":
        member["cepstral_mean_norm"] = model.cepstral_mean_norm
    if training.pretrain_epochs:
        member["pretraining_seed"] = config.training.seed
    return member


def _evaluate(
    card: dict[str, Any],
    model: bytes,
    fitted: Fitted,
    dataset: Dataset,
    subsets: Mapping[str, Sequence[str]],
    progress: ProgressFn,
) -> dict[str, list[Record]]:
    """The records of validation and test tracks by the exported model, and of cross-validation; completes the card."""
    with tempfile.TemporaryDirectory() as folder:
        classifier = Classifier(save_model(Path(folder), model, b"", card))
        records = {name: evaluate_tracks(classifier, dataset, subsets[name], progress) for name in ("valid", "test")}
    records = {subset: rows for subset, rows in (records | {"cv": fitted.cv}).items() if rows}
    artists = {track.artist for track in fitted.training.tracks} - {""}
    card["metrics"] = {
        subset: evaluate_records(rows, fitted.training.tracks, dataset.genres)
        if subset == "cv"
        else compute_metrics(rows, dataset.genres, artists)
        for subset, rows in records.items()
    }
    if overlap := card["metrics"].get("test", {}).get("artist_overlap"):
        card["data"]["artist_overlap"] = overlap
    return records


def _summary(card: dict[str, Any]) -> str:
    """What the model is, on what it was trained, and how good it is."""
    data = card["data"]
    counts = Counter(NETWORK_NAMES[member["architecture"]] for member in card["members"])
    networks = " and ".join(f"{count} {name}s" if count > 1 else name for name, count in counts.items())
    results = [
        summarize_accuracy(Evaluation("", subset, card["metrics"][subset], []))
        + (", on which it was calibrated" if subset == "valid" else "")
        for subset in ("test", "cv", "valid")
        if subset in card["metrics"]
    ]
    origin = f"trained on {data['counts']['train']} tracks of {data['name']} ({data['split_name']} split)"
    return f"{networks}, {origin}; {'; '.join(results) or 'not evaluated'}."


def _write_tables_and_plots(
    out: Path,
    card: dict[str, Any],
    fitted: Fitted,
    dataset: Dataset,
    subsets: Mapping[str, Sequence[str]],
    records: Mapping[str, Sequence[Record]],
) -> None:
    artist_of = {track.id: track.artist for track in dataset.tracks}
    rows = [(track, subset, artist_of[track]) for subset, ids in subsets.items() for track in ids]
    _write_csv(out / saved_model.SPLIT, [("track", "split", "artist"), *rows])
    write_predictions(out / saved_model.PREDICTIONS, records, dataset.genres)
    if history := fitted.history:
        _write_csv(out / saved_model.HISTORY, [tuple(history[0]), *(tuple(row.values()) for row in history)])
        plots.save(plots.history(history, card["name"], card["metrics"].get("cv")), out / "history.png")
    if card["metrics"]:
        subset = best_available_metrics(card)
        plots.evaluation(out, card["genres"], card["metrics"][subset], f"{card['name']}, {SUBSET_NAMES[subset]} tracks")


def _write_csv(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def versions(config: Config) -> dict[str, str]:
    """The versions of what training ran on."""
    import musicclass

    names = ["numpy", "scipy", "sklearn", "onnx", "onnxruntime"]
    if config.model.uses_keras:
        names += ["keras", importlib.import_module("keras").backend.backend()]
    installed = {name: getattr(importlib.import_module(name), "__version__", "?") for name in names}
    return {"musicclass": musicclass.__version__, "python": platform.python_version(), **installed}
