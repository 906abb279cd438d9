"""The classifier of the tagger's embeddings, and models that use it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from musicclass.classifier import Classifier
from musicclass.config import Config, FeatureConfig, load_config
from musicclass.datasets import Dataset, Track
from musicclass.datasets.splits import make_split
from musicclass.errors import DatasetError
from musicclass.features import TrackFeatures
from musicclass.tagger import EMBEDDING_SIZE, TrackEmbeddings
from musicclass.training import cross_validation
from musicclass.training.cross_validation import calibrate, cross_validate, evaluate_folds
from musicclass.training.linear import PENALTIES
from musicclass.training.networks import Monitor
from musicclass.training.tagger_head import fit_tagger_head
from musicclass.training.tracks import LabelledTracks
from musicclass.training.train import train

GENRES = ("fado", "samba", "tango")
SMALL = ("model.architecture=lda+tagger", "features.n_mfcc=12", "features.window_seconds=2", "features.norm_seconds=4")


def make_dataset(n: int = 36, sources: tuple[str, ...] = ("a", "b"), without: int = 0) -> Dataset:
    """Tracks with noise as log-mel frames and embeddings that show their genre; the first `without` have none."""
    rng = np.random.default_rng(0)
    tracks, features = [], {}
    for i in range(n):
        genre = i % len(GENRES)
        track = Track(f"t{i}", GENRES[genre], f"artist {i // 3}", source=sources[i // 3 % len(sources)])
        vectors = rng.standard_normal((2, EMBEDDING_SIZE), dtype=np.float32)
        vectors[:, genre :: len(GENRES)] += 1
        patches = None if i < without else TrackEmbeddings(vectors, np.array([[0.0, 3.0], [3.0, 6.0]]))
        features[track.id] = TrackFeatures(rng.normal(-40, 8, (140, 112)).astype(np.float32), 6.0, patches)
        tracks.append(track)
    return Dataset("dances", tuple(tracks), lambda track, config, with_tagger: features[track.id])


def load(dataset: Dataset, config: Config) -> LabelledTracks:
    return LabelledTracks.load(dataset, [track.id for track in dataset.tracks], config)


def test_head_equals_scikit_learn_on_whitened_embeddings():
    tracks = load(make_dataset(), Config())
    head = fit_tagger_head(tracks, Config())
    patches = np.stack(list(tracks.patches.values())).astype(np.float64)  # (n_tracks, 2, 200)
    x, y = patches.mean(axis=1), tracks.labels
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    half = (patches[:, 0] - patches[:, 1]) / 2
    whitening = np.linalg.cholesky(np.linalg.inv(np.diag(x.var(axis=0)) + 2 * half.T @ half / len(half)))
    expected = LogisticRegression(C=Config().model.tagger_c, max_iter=1000).fit((x - x.mean(axis=0)) @ whitening, y)
    probabilities = expected.predict_proba((x - x.mean(axis=0)) @ whitening)
    np.testing.assert_allclose(np.exp(head.logits(tracks.embeddings)), probabilities, atol=1e-3)
    assert (probabilities.argmax(axis=1) == y).all()
    assert not head.logits(np.zeros((2, EMBEDDING_SIZE), np.float32)).any()


def test_expert_changes_only_its_genres_and_most_where_tracks_resemble_its_source():
    dataset = make_dataset(60)
    shifted = []
    for track in dataset.tracks:
        is_a = track.source == "a"
        shifted.append(replace(track, genre="fado" if is_a and track.genre == "tango" else track.genre))
    tracks = load(replace(dataset, tracks=tuple(shifted)), Config())
    config = replace(Config(), model=replace(Config().model, tagger_expert="a"))
    plain, mixed = fit_tagger_head(tracks, Config()), fit_tagger_head(tracks, config)
    assert mixed.expert_genres is not None and [GENRES[i] for i in mixed.expert_genres] == ["fado", "samba"]
    before, after = (np.exp(head.logits(tracks.embeddings).astype(float)) for head in (plain, mixed))
    tango = GENRES.index("tango")
    ratio = after[:, :tango].sum(axis=1) / (after.sum(axis=1) - after[:, tango])
    np.testing.assert_allclose(ratio, 1)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(softmax(np.log(after), axis=1).sum(axis=1), 1)


def test_head_of_few_or_no_embeddings_and_chosen_penalty():
    nothing = fit_tagger_head(load(make_dataset(6, without=6), Config()), Config())
    assert np.ptp(nothing.logits(np.ones((1, EMBEDDING_SIZE), np.float32))) == 0
    transfer = load_config("transfer")
    assert fit_tagger_head(load(make_dataset(), transfer), transfer).c in PENALTIES


def test_weights_follow_confidence_and_genre_balance():
    dataset = make_dataset(12)
    grades = ("high", "", "low")
    tracks = tuple(replace(track, confidence=grades[i // 3 % 3]) for i, track in enumerate(dataset.tracks))
    labelled = load(replace(dataset, tracks=tracks[:11]), Config())
    weights = labelled.weights((1.0, 1.0, 0.25), 0.0)
    assert (
        weights.mean() == pytest.approx(1) and weights[6] == pytest.approx(weights[0] / 4) and weights[3] == weights[0]
    )
    totals = np.bincount(labelled.labels, labelled.weights((1.0, 1.0, 0.25), 1.0))
    np.testing.assert_allclose(totals, totals[0])


@pytest.fixture(scope="module")
def heldout():
    config = load_config(None, SMALL)
    tracks = load(make_dataset(60, without=6), config)
    folds, by = cross_validation.calibration_folds(tracks.tracks, 3)
    assert by == "artist"
    return config, tracks, folds


@pytest.mark.slow
def test_folds_with_the_tagger_predict_better_than_the_first_branch_and_fall_back_to_it(heldout, tmp_path):
    config, tracks, folds = heldout
    results = cross_validate(config, tracks, folds, tmp_path, Monitor())
    records, alone = (evaluate_folds(results, GENRES, config, tagger) for tagger in (True, False))
    accuracy, accuracy_alone = (np.mean([r.top_genre == r.label for r in rows]) for rows in (records, alone))
    assert accuracy > 0.85 > accuracy_alone
    without = {track.id for track in tracks.tracks[:6]}
    for with_tagger, first in zip(records, alone, strict=True):
        assert (with_tagger == first) == (with_tagger.track in without)
    rng = np.random.default_rng(0)
    for fold in results:  # a second network, in which half of the information is noise
        fold.logits["cnn_lstm"] = [x + rng.normal(0, x.std(), x.shape).astype(np.float32) for x in fold.logits["lda"]]
    shares = []
    for branches in (("lda", "cnn_lstm"), ("lda", "cnn_lstm", "tagger")):
        chosen = [replace(fold, logits={b: fold.logits[b] for b in branches}) for fold in results]
        weights = calibrate(chosen, config, results[0].ood, results[0].embedding_ood).weights
        assert sum(weights.values()) == pytest.approx(1)
        shares.append(weights["cnn_lstm"] / (weights["cnn_lstm"] + weights["lda"]))
    assert shares[0] == pytest.approx(shares[1]) and weights["tagger"] > 0.3


@pytest.mark.slow
def test_a_trained_model_uses_embeddings_and_predicts_without_them(tmp_path):
    dataset = make_dataset(60)
    config = load_config(None, (*SMALL, "training.calibration_folds=3"))
    saved = train(dataset, make_split(dataset, "artist", test_size=0), config, tmp_path / "model")
    classifier = Classifier(saved)
    track = dataset.tracks[1]
    features = dataset.features(track, FeatureConfig(), True)
    with_tagger = classifier.predict_features(features)
    first = classifier.predict_features(features._replace(patches=None))
    assert with_tagger.top_genre == track.genre and with_tagger.confidence > first.confidence
    assert with_tagger.embedding is not None and first.embedding is None
    assert saved.card["members"][-1]["architecture"] == "tagger" and set(saved.card["metrics"]) == {"cv"}
    assert set(saved.card["metrics"]["cv"]["sources"]) == {"a", "b"}


def test_folds_by_source_leave_out_each_source_and_its_artists():
    tracks = list(make_dataset(18, sources=("a", "b", "c")).tracks)
    tracks[0] = replace(tracks[0], artist=tracks[3].artist)  # of source b
    folds = cross_validation._folds(tracks, 5, "source")
    assert [fold.name for fold in folds] == ["without a", "without b", "without c"]
    assert tracks[3].id not in folds[0].train and set(folds[0].valid) == {t.id for t in tracks if t.source == "a"}
    with pytest.raises(DatasetError, match="two or more data sets"):
        cross_validation._folds([replace(track, source="") for track in tracks], 5, "source")


def test_folds_are_by_track_where_few_artists_are_known_and_fit_small_data_sets():
    tracks = [replace(track, artist="") for track in make_dataset(9).tracks]
    folds, by = cross_validation.calibration_folds(tracks, 3)
    assert by == "track" and sorted(i for fold in folds for i in fold.valid) == sorted(t.id for t in tracks)
    tracks[0] = replace(tracks[0], artist="the only known one")
    assert cross_validation.calibration_folds(tracks, 3)[1] == "track"
    assert len(cross_validation.calibration_folds(tracks[:6], 5)[0]) == 2  # no more than tracks of a genre
    with pytest.raises(DatasetError, match="add tracks"):
        cross_validation.calibration_folds(tracks[:3], 5)


@pytest.mark.slow
@pytest.mark.parametrize("without", ["c", "abc"])
def test_sources_without_embeddings_count_for_the_first_branch_alone(without, tmp_path):
    """As archives of log-mel frames alone."""
    complete, config = make_dataset(45, sources=("a", "b", "c")), load_config(None, SMALL)

    def features(track: Track, features: FeatureConfig, with_tagger: bool) -> TrackFeatures:
        result = complete.features(track, features, with_tagger)
        return result._replace(patches=None) if track.source in without else result

    dataset, ids = replace(complete, features=features), [track.id for track in complete.tracks]
    result = cross_validation.run(dataset, ids, 5, "source", config, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert set(metrics["first branch"]["sources"]) == set(metrics["lda+tagger"]["sources"]) == {"a", "b", "c"}
    assert metrics["lda+tagger"]["n_tracks"] == len(result.records) == 45
    if without == "c":
        assert set(metrics["tagger"]["sources"]) == {"a", "b"} and metrics["tagger"]["macro_recall"] > 0.85
        alone, together = (metrics[name]["sources"]["c"] for name in ("first branch", "lda+tagger"))
        assert alone["accuracy"] == together["accuracy"]
    else:
        assert "tagger" not in metrics


def test_labels_of_low_confidence_alone_cannot_calibrate(tmp_path):
    dataset, config = make_dataset(12), load_config(None, SMALL)
    tracks = tuple(replace(track, confidence="low" if track.source == "b" else "") for track in dataset.tracks)
    with pytest.raises(DatasetError, match="high or medium confidence in two or more folds"):
        cross_validation.run(replace(dataset, tracks=tracks), [t.id for t in tracks], 5, "source", config, tmp_path)
    assert not any((tmp_path / "work").glob("*"))
