"""How scripts/train_pretrained.py judges and calibrates by folds, on made-up answers."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from musicclass.confidence import Familiarity
from musicclass.datasets import Track
from musicclass.training.evaluate import score
from tests.conftest import ROOT

GENRES = ("a", "b", "c")


@pytest.fixture
def program(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import train_pretrained

    return train_pretrained


@pytest.fixture
def folds(program) -> list:
    """Four of 30 tracks by ten artists, with two windows each, whose logits are right more often than not."""
    rng, made = np.random.default_rng(0), []
    for k in range(4):
        truth = np.arange(30) % 3
        windows = [rng.standard_normal((2, 40, 8), dtype=np.float32) for _ in truth]
        familiarity = Familiarity.fit(windows, windows)
        logits = [2 * np.eye(3)[genre] + rng.standard_normal((2, 3)) for genre in truth]
        tracks = [Track(f"{k} {i}", GENRES[genre], f"{k} {i % 10}") for i, genre in enumerate(truth)]
        distances = [familiarity.distances(item) for item in windows]
        made.append(program.Fold(tracks, truth, windows, distances, familiarity, {"net": logits}))
    return made


def test_each_fold_is_judged_by_the_others(program, folds):
    rows = program.told(folds, "net", GENRES)
    assert [row["track"] for row in rows] == [track.id for fold in folds for track in fold.tracks]
    assert rows[0]["artist"] == "0 0" and score(rows, GENRES)["groups"] == 40
    assert score(rows, GENRES)["accuracy"] > 0.8


def test_nothing_that_judges_a_fold_was_fitted_to_it(program, folds):
    """Neither where its sounds lie nor what was said of it."""
    rows = program.told(folds, "net", GENRES)
    last = replace(
        folds[3],
        familiarity=replace(folds[3].familiarity, half=9 * folds[3].familiarity.half),
        logits={"net": [logits[:, ::-1] for logits in folds[3].logits["net"]]},
    )
    others = program.told([*folds[:3], last], "net", GENRES)
    assert others[0] != rows[0], "the first three are judged by the last"
    same = program.told([*folds[:3], replace(last, logits=folds[3].logits)], "net", GENRES)
    assert same[90:] == rows[90:] and len(same) == 120


def test_the_shipped_half_is_the_mean_of_the_folds(program, folds):
    assert program.usual_half(folds) == pytest.approx(np.mean([fold.familiarity.half for fold in folds]))
