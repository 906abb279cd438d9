"""Cross-validation: networks are evaluated, and models calibrated, on tracks that the networks weren't trained on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.classifier import TrackScores
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
from musicclass.training.calibration import Calibrator, artist_folds, fit_branch_weights
from musicclass.training.networks import Monitor, Trained, train_networks
from musicclass.training.ood import (
    SCALE_QUANTILE,
    EmbeddingOodScorer,
    FeatureOodScorer,
    Floats,
    Ints,
)
from musicclass.training.tagger_head import TaggerHead, fit_tagger_head
from musicclass.training.tracks import LabelledTracks, WindowedTracks, mean_logits

METRICS = "metrics.json"
TAGGER, FIRST_BRANCH = "tagger", "first branch"
WORK = "work"  # folder with the state of training


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Outputs for held-out tracks of networks that weren't trained on them."""

    tracks: tuple[Track, ...]
    labels: Ints  # (n_tracks,)
    logits: dict[str, list[Array]]  # branch -> (n_windows, n_genres) for each track
    distances: list[Floats]  # (n_windows,) for each track, by `ood`
    embeddings: list[Array]  # (n_windows, 200) for each track; zeros where it has none
    ood: FeatureOodScorer  # fitted to the networks' training tracks, as is:
    embedding_ood: EmbeddingOodScorer | None = None
    excluded: HeldOut | None = None  # tracks of a genre that is in no fold

    @property
    def with_embedding(self) -> npt.NDArray[np.bool_]:
        """Which tracks (n_tracks,) have embeddings."""
        return np.array([x.any() for x in self.embeddings], np.bool_)

    @property
    def embedding_distances(self) -> Floats:
        """The distance of each track's mean embedding (n_tracks,)."""
        if self.embedding_ood is None:
            return np.zeros(len(self.tracks))
        return self.embedding_ood.distance(np.stack([x.mean(axis=0, dtype=np.float64) for x in self.embeddings]))

    def subset_of(self, chosen: npt.NDArray[np.bool_]) -> HeldOut:
        """Those tracks of `chosen` (n_tracks,)."""
        rows = np.flatnonzero(chosen).tolist()
        return replace(
            self,
            tracks=tuple(self.tracks[i] for i in rows),
            labels=self.labels[rows],
            logits={branch: [values[i] for i in rows] for branch, values in self.logits.items()},
            distances=[self.distances[i] for i in rows],
            embeddings=[self.embeddings[i] for i in rows],
        )


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the branches' logits become probabilities and familiarity."""

    weights: dict[str, float]  # of the branches; their sum is 1
    calibrator: Calibrator
    first_branch: Calibrator | None = None  # for the sum without the tagger, where a track has no embeddings

    def score(self, heldout: HeldOut, i: int, scale: float, tagger: bool = True) -> TrackScores:
        """The scores of track i, whose feature distances are multiplied by `scale`."""
        with_tagger = tagger and TAGGER in self.weights and bool(heldout.embeddings[i].any())
        calibrator = self.first_branch if self.first_branch and not with_tagger else self.calibrator
        logits = combine_branches(
            {b: heldout.logits[b][i : i + 1] for b in _branches(self.weights, with_tagger)}, self.weights
        )
        return calibrator.score(logits[0], heldout.distances[i] * scale, heldout.embeddings[i] if with_tagger else None)


def _branches(weights: Mapping[str, Any], with_tagger: bool) -> list[str]:
    return [branch for branch in weights if with_tagger or branch != TAGGER]


def cross_validate(
    config: Config,
    tracks: LabelledTracks,
    folds: Sequence[Split],
    work: Path,
    monitor: Monitor,
    excluded: LabelledTracks | None = None,
) -> list[HeldOut]:
    """Train on each fold's `train` tracks, below `work`, and predict its `valid` tracks and those of `excluded`.

    Raises DatasetError when fewer than two folds can be used for calibration.
    """
    usable = {track.id for track in tracks.tracks if track.confidence != "low"}
    if sum(not usable.isdisjoint(fold.valid) for fold in folds) < 2:
        raise DatasetError(
            "calibration needs labels of high or medium confidence in two or more folds; "
            "check the column confidence, or add tracks"
        )
    results = []
    for i, fold in enumerate(folds, 1):
        training, heldout = tracks.subset(fold.train, "training"), tracks.subset(fold.valid, "evaluation")
        here = monitor._replace(prefix=f"fold {i} of {len(folds)}: ")
        networks = train_networks(config, training, heldout, work / f"fold-{i}", here)
        head = fit_tagger_head(training, config) if config.model.uses_tagger else None
        result = predict_heldout(networks, head, training, heldout, config)
        if excluded:
            other = predict_heldout(networks, head, training, excluded, config, result.ood)
            result = replace(result, excluded=other)
        results.append(result)
    return results


def predict_heldout(
    networks: Mapping[str, Sequence[Trained]],
    head: TaggerHead | None,
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
    embedding_ood = None
    if head is not None:
        logits[TAGGER] = [head.logits(each) for each in windows.embeddings]
        embedding_ood = embedding_scorer(training)
    return HeldOut(heldout.tracks, heldout.labels, logits, distances, windows.embeddings, ood, embedding_ood)


def embedding_scorer(training: LabelledTracks) -> EmbeddingOodScorer | None:
    """Fitted to the training tracks that have embeddings."""
    embeddings = training.embeddings
    known = embeddings.any(axis=1)
    return EmbeddingOodScorer.fit(embeddings[known], training.labels[known], len(training.genres))


def calibrate(
    heldout: Sequence[HeldOut], config: Config, ood: FeatureOodScorer, embedding_ood: EmbeddingOodScorer | None = None
) -> Calibration:
    """Branch weights and calibrators, fitted to held-out tracks of one or more folds.

    Labels of low confidence don't count. The weights of networks are fitted first, to all tracks, for those without
    embeddings; that of the tagger then, to the tracks that have embeddings.
    """
    heldout = [fold.subset_of(np.array([track.confidence != "low" for track in fold.tracks])) for fold in heldout]
    if TAGGER not in heldout[0].logits:
        weights = _fit_weights(heldout, config)
        return Calibration(weights, _fit_calibrator(heldout, weights, config, ood))
    complete = _with_embeddings(heldout) or heldout
    weights, first = {TAGGER: 1.0}, _branches(heldout[0].logits, False)
    if first:
        within = _fit_weights(_only(heldout, first), config)  # also right for tracks without embeddings
        share = _fit_weights([_merge(fold, within) for fold in complete], config)
        weights = {branch: weight * share[FIRST_BRANCH] for branch, weight in within.items()} | {TAGGER: share[TAGGER]}
    calibrator = _fit_calibrator(complete, weights, config, ood, embedding_ood)
    alone = {branch: weights[branch] for branch in first}
    return Calibration(weights, calibrator, _fit_calibrator(heldout, alone, config, ood) if first else None)


def _only(heldout: Sequence[HeldOut], branches: Sequence[str]) -> list[HeldOut]:
    return [replace(fold, logits={branch: fold.logits[branch] for branch in branches}) for fold in heldout]


def _merge(fold: HeldOut, weights: Mapping[str, float]) -> HeldOut:
    """With the weighted sum of the networks as one branch, beside the tagger."""
    merged = combine_branches({branch: fold.logits[branch] for branch in weights}, weights)
    return replace(fold, logits={FIRST_BRANCH: merged, TAGGER: fold.logits[TAGGER]})


def _with_embeddings(heldout: Sequence[HeldOut]) -> list[HeldOut]:
    """The tracks that have embeddings, without folds that have none."""
    return [fold.subset_of(fold.with_embedding) for fold in heldout if fold.with_embedding.any()]


def _fit_weights(heldout: Sequence[HeldOut], config: Config) -> dict[str, float]:
    """Branch -> weight; the sum is 1."""
    labels = np.concatenate([fold.labels for fold in heldout])
    logits = {branch: [x for fold in heldout for x in fold.logits[branch]] for branch in heldout[0].logits}
    sample_weights = _sample_weights(labels, config)
    fitted = fit_branch_weights(
        [mean_logits(x) for x in logits.values()], labels, sample_weights, config.training.bias_penalty
    )
    return dict(zip(logits, fitted.tolist(), strict=True))


def _fit_calibrator(
    heldout: Sequence[HeldOut],
    weights: Mapping[str, float],
    config: Config,
    ood: FeatureOodScorer,
    embedding_ood: EmbeddingOodScorer | None = None,
) -> Calibrator:
    """The calibrator of the weighted sum of the branches in `weights`."""
    labels = np.concatenate([fold.labels for fold in heldout])
    if len(heldout) == 1:
        folds = artist_folds(heldout[0].tracks)
    else:
        folds = np.repeat(np.arange(len(heldout)), [len(fold.tracks) for fold in heldout])
    logits = {branch: [x for fold in heldout for x in fold.logits[branch]] for branch in weights}
    distances = [x * (fold.ood.scale / ood.scale) for fold in heldout for x in fold.distances]
    scores = np.concatenate([fold.embedding_distances for fold in heldout]) if embedding_ood else None
    return Calibrator.fit(
        ood, distances, combine_branches(logits, weights), labels, folds, _sample_weights(labels, config),
        embedding_ood, scores, config.training.bias_penalty,
    )  # fmt: skip


def _sample_weights(labels: Ints, config: Config) -> Floats | None:
    """Weights (n_tracks,), `training.calibration_balance` of the way to equal weights of genres."""
    balance = config.training.calibration_balance
    return 1 / np.bincount(labels)[labels].astype(np.float64) ** balance if balance else None


def combine_branches(logits: Mapping[str, Sequence[Array]], weights: Mapping[str, float]) -> list[Array]:
    """The weighted sum of the branches' logits, for each track."""
    parts = [[weights[branch] * x for x in by_track] for branch, by_track in logits.items()]
    return [np.sum(rows, axis=0) for rows in zip(*parts, strict=True)]


def common_scale(heldout: Sequence[HeldOut]) -> float:
    """The scale of the feature distance, from the held-out tracks of all folds: one fold may have too few of them."""
    distances = [x.mean() * fold.ood.scale for fold in heldout for x in fold.distances]
    return max(1e-9, float(np.quantile(distances, SCALE_QUANTILE, method="weibull")))


def evaluate_folds(
    heldout: Sequence[HeldOut], genres: Sequence[str], config: Config, tagger: bool = True
) -> list[Record]:
    """The records of all held-out tracks; each fold is calibrated on the others. Without `tagger`, as without it."""
    return [record for fold in heldout for record in _records(fold, fold, heldout, genres, config, tagger)]


def _records(
    tracks: HeldOut, fold: HeldOut, heldout: Sequence[HeldOut], genres: Sequence[str], config: Config, tagger: bool
) -> list[Record]:
    """The records of tracks predicted by the networks of a fold, calibrated on the other folds."""
    others = [other for other in heldout if other is not fold]
    scale = common_scale(others)
    calibration = calibrate(others, config, replace(fold.ood, scale=scale), fold.embedding_ood)
    records = []
    for k, track in enumerate(tracks.tracks):
        scores = calibration.score(tracks, k, fold.ood.scale / scale, tagger)
        i = int(scores.probabilities.argmax())
        confidence, familiarity = float(scores.probabilities[i]), scores.familiarity
        predicted = genres[i] if is_in_distribution(familiarity, confidence, None) else UNKNOWN
        probabilities = dict(zip(genres, scores.probabilities.tolist(), strict=True))
        records.append(Record(track.id, track.artist, track.genre, predicted, confidence, familiarity, probabilities))
    return records


def branch_metrics(
    heldout: Sequence[HeldOut], branches: Iterable[str], tracks: Sequence[Track], genres: Sequence[str], config: Config
) -> dict[str, dict[str, Any]]:
    """Branch -> metrics of that branch alone, calibrated anew: does another one improve on it?

    Empty with one branch; the tagger is evaluated on tracks with embeddings, and needs two folds that have some.
    """
    branches, metrics = list(branches), {}
    for branch in branches if len(branches) > 1 else ():
        alone = _only(heldout, [branch])
        if branch == TAGGER:
            alone = _with_embeddings(alone)
        if len(alone) > 1:  # each fold is calibrated on the others
            metrics[branch] = evaluate_records(evaluate_folds(alone, genres, config), tracks, genres)
    return metrics


def excluded_auroc(
    heldout: Sequence[HeldOut], records: Sequence[Record], genres: Sequence[str], config: Config
) -> float:
    """AUROC of familiarity: held-out tracks, by their `records`, against the excluded genre's; the mean over folds."""
    from sklearn.metrics import roc_auc_score

    familiarity, aurocs = {record.track: record.familiarity for record in records}, []
    for fold in heldout:
        assert fold.excluded is not None
        known = [familiarity[track.id] for track in fold.tracks]
        unknown = [record.familiarity for record in _records(fold.excluded, fold, heldout, genres, config, True)]
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
    by: str,
    config: Config,
    out: Path,
    resume: bool = False,
    monitor: Monitor | None = None,
    progress: ProgressFn = no_progress,
    leave_out: str | None = None,
) -> Result:
    """Cross-validate on the tracks `ids`, and write predictions.csv and metrics.json into the folder `out`.

    `by`: "artist" keeps the tracks of an artist in one fold, "track" doesn't; "source" leaves out each source in turn.
    Tracks whose label has low confidence are trained on, by their weight, but not evaluated.
    With `leave_out`, a genre, its tracks are in no fold, but every fold predicts them: is their familiarity lower?
    Raises DatasetError when `out` has these files already, there are too few artists, or there is no such genre.
    """
    prepare_folder(out, METRICS, resume)
    excluded = None
    if leave_out is not None:
        dataset, of_genre = _exclude(dataset, leave_out)
        excluded = LabelledTracks.load(of_genre, ids, config, progress)
    tracks = LabelledTracks.load(dataset, ids, config, progress)
    folds = _folds(tracks.tracks, n_folds, by)
    heldout = cross_validate(config, tracks, folds, out / WORK, monitor or Monitor(), excluded)
    records = evaluate_folds(heldout, dataset.genres, config)
    metrics = {config.model.architecture: evaluate_records(records, tracks.tracks, dataset.genres)}
    weights = calibrate(heldout, config, heldout[0].ood, heldout[0].embedding_ood).weights
    if TAGGER in weights:
        alone = evaluate_folds(heldout, dataset.genres, config, tagger=False)
        metrics[FIRST_BRANCH] = evaluate_records(alone, tracks.tracks, dataset.genres)
    metrics |= branch_metrics(heldout, weights, tracks.tracks, dataset.genres, config)
    write_predictions(out / PREDICTIONS, {"cv": records}, dataset.genres)
    auroc = excluded_auroc(heldout, records, dataset.genres, config) if excluded else None
    content: dict[str, Any] = {"config": to_dict(config), "branch_weights": weights, "metrics": metrics}
    content |= {"excluded": {"genre": leave_out, "auroc_of_familiarity": auroc}} if excluded else {}
    write_text(out / METRICS, json.dumps(content, indent=1) + "\n")
    shutil.rmtree(out / WORK, ignore_errors=True)
    return Result(records, metrics, weights, dataset.genres, auroc)


def _folds(tracks: Sequence[Track], n_folds: int, by: str) -> list[Split]:
    if by != "source":
        return artist_kfold(
            tracks if by == "artist" else [replace(track, artist=track.id) for track in tracks], n_folds
        )
    sources = sorted({track.source for track in tracks})
    if len(sources) < 2:
        raise DatasetError("cross-validation by source needs two or more data sets, or a labels CSV with sources")
    folds = []
    for source in sources:
        artists = {track.artist for track in tracks if track.source == source} - {""}
        valid = tuple(track.id for track in tracks if track.source == source)
        train = tuple(track.id for track in tracks if track.source != source and track.artist not in artists)
        folds.append(Split(f"without {source}", train, valid))
    return folds


def evaluate_records(records: Sequence[Record], tracks: Sequence[Track], genres: Sequence[str]) -> dict[str, Any]:
    """The metrics of the tracks whose labels have no low confidence; with several sources, of each as well."""
    source_of = {track.id: track.source for track in tracks if track.confidence != "low"}
    rows = [record for record in records if record.track in source_of]
    metrics = compute_metrics(rows, genres)
    if len(sources := sorted({source_of[row.track] for row in rows})) > 1:
        metrics["sources"] = {
            name: compute_metrics([row for row in rows if source_of[row.track] == name], genres) for name in sources
        }
    return metrics


def calibration_folds(tracks: Sequence[Track], n_folds: int) -> tuple[list[Split], str]:
    """At most `n_folds` folds, and what they keep together: "artist", or "track" where most artists aren't known."""
    known = [track for track in tracks if track.artist]
    n_artists = len({track.artist for track in known})
    by = "artist" if n_artists > 1 and len(known) >= len(tracks) / 2 else "track"
    used, n_groups = (known, n_artists) if by == "artist" else (tracks, len(tracks))
    largest = max(Counter(track.genre for track in used).values())
    return _folds(tracks, max(2, min(n_folds, n_groups, largest)), by), by


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
