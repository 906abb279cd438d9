"""Paired comparison of models, and records in predictions.csv."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from musicclass.errors import DatasetError
from musicclass.evaluation.evaluate import Record, compute_metrics, mean_and_std, read_predictions, write_predictions
from musicclass.evaluation.significance import MIN_ARTISTS, compare, sign_flip_ci, sign_flip_p_value

GENRES = ("a", "b")


def make_records(correct: str, artist: str = "") -> list[Record]:
    """One track of genre a for each character: y is a correct prediction, n a wrong one."""
    probabilities = {"y": {"a": 0.9, "b": 0.1}, "n": {"a": 0.1, "b": 0.9}}
    predicted = {"y": "a", "n": "b"}
    return [Record(f"{i}", artist, "a", predicted[c], 0.9, 0.8, probabilities[c]) for i, c in enumerate(correct)]


def test_comparison_without_artists_is_mcnemars_test():
    result = compare(make_records("yyyyynnnnn"), make_records("yyynnyyyyy"))
    assert (result["n_tracks"], result["only_a_correct"], result["only_b_correct"]) == (10, 2, 5)
    assert result["accuracy"] == [0.5, 0.8] and result["difference"] == pytest.approx(0.3)
    assert result["p_value"] == pytest.approx(scipy.stats.binomtest(2, 7).pvalue)
    assert result["difference_ci95"][0] < 0.3 < result["difference_ci95"][1]


def test_comparison_takes_artists_as_sampling_units():
    a, b = make_records("nnnnnnyy"), make_records("yyyyyyyn")
    assert compare(a, b)["p_value"] == pytest.approx(16 / 128)
    a[:6] = [replace(record, artist="x") for record in a[:6]]
    for result in (compare(a, b), compare(b, a)):
        assert (result["n_tracks"], result["n_artists"], result["p_value"]) == (8, 3, 1)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9))
def test_sign_flip_test_matches_scipy(differences):
    values = np.array(differences)
    reference = scipy.stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=10_000)
    assert sign_flip_p_value(values) == pytest.approx(reference.pvalue)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(3, 4)), min_size=1, max_size=20))
@example([(-1, 1)] * 3 + [(0, 1)] * 7)
def test_interval_and_test_agree(artists):
    differences, sizes = np.array(artists).T
    p_value = sign_flip_p_value(differences)
    low, high = sign_flip_ci(differences, sizes, p_value)
    mean = differences.sum() / sizes.sum()
    assert (p_value < 0.05) == (low > 0 or high < 0) and low - 1e-6 <= mean <= high + 1e-6
    assert len(artists) >= MIN_ARTISTS or (low, high) == (-1, 1)


def test_interval_is_close_to_that_of_students_t():
    rng = np.random.default_rng(0)
    differences, sizes = rng.integers(-1, 2, 200) + (rng.random(200) < 0.1), np.full(200, 2)
    half_width = 1.97 * differences.std() / 2 / 200**0.5
    mean = differences.mean() / 2
    interval = sign_flip_ci(differences, sizes, sign_flip_p_value(differences))
    assert interval == pytest.approx((mean - half_width, mean + half_width), abs=0.005)


def test_models_without_common_tracks_cannot_be_compared():
    with pytest.raises(DatasetError, match="no evaluated track in common"):
        compare(make_records("y"), [])


def test_predictions_survive_a_round_trip(tmp_path):
    records = {"cv": make_records("yn", 'Céu, "x"'), "test": make_records("y")}
    write_predictions(tmp_path / "predictions.csv", records, GENRES)
    assert read_predictions(tmp_path / "predictions.csv") == records
    assert read_predictions(tmp_path / "missing.csv") == {}


@pytest.mark.parametrize("text", ["track,artist\n1,2\n", "subset,track,confidence\ncv,1,much\n", "\xff"])
def test_damaged_predictions_are_rejected(tmp_path, text):
    (tmp_path / "predictions.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match="not a table of predictions"):
        read_predictions(tmp_path / "predictions.csv")


def test_metrics_report_artists_shared_with_training():
    records = make_records("yyn", "x") + make_records("y")
    assert compute_metrics(records, GENRES, ["x", "y"])["artist_overlap"] == 1  # unknown artists don't count
    assert "artist_overlap" not in compute_metrics(records, GENRES, ["y"])
    with pytest.raises(DatasetError, match="no tracks left"):
        compute_metrics([], GENRES)


def test_mean_and_std_over_seeds():
    assert mean_and_std([{"accuracy": 0.5}, {"accuracy": 0.7}])["accuracy"] == pytest.approx((0.6, 0.02**0.5))
    assert mean_and_std([{"accuracy": 0.5}])["accuracy"] == (0.5, 0)
