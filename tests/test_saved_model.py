"""Saved models: what the package contains, verification, and damaged files."""

from __future__ import annotations

import json
import shutil

import pytest

import musicclass
from musicclass.classifier import Classifier
from musicclass.errors import ModelError
from musicclass.saved_model import CARD, FRONTEND, MODEL, PREDICTIONS, SPLIT, list_pretrained, load_model, save_model


@pytest.fixture
def copy(tmp_path):
    """A copy of the pretrained model's folder."""
    return shutil.copytree(load_model().path, tmp_path / "copy")


def test_pretrained_model_is_complete_and_small():
    assert list_pretrained() == ["gtzan", "music"] and load_model().name == "music"
    for name, n_genres in (("gtzan", 10), ("music", 12)):
        model = load_model(name)
        assert model.name == name and len(model.genres) == n_genres
        assert (model.path / MODEL).stat().st_size <= 4e6 and (model.path / CARD).stat().st_size <= 80e3


def test_pretrained_card_documents_training_and_evaluation():
    """Every training track and evaluated track is listed; the test set was evaluated once."""
    model = load_model("gtzan")
    tracks = model.read_table(SPLIT)
    assert len([row for row in tracks if row["split"] == "train"]) == 639
    assert all("seed" in member for member in model.card["members"])
    assert len([row for row in model.read_table(PREDICTIONS) if row["subset"] == "cv"]) == 596
    assert model.card["metrics"]["test"]["n_tracks"] == 290


def test_copies_and_saved_models_load(copy, tmp_path):
    model = load_model(copy)
    assert model.card == load_model().card
    graphs = [(copy / name).read_bytes() for name in (MODEL, FRONTEND)]
    saved = save_model(tmp_path / "saved", *graphs, model.card)
    assert saved.card == model.card and saved.genres == model.genres and saved.features == model.features
    assert saved.read_table("nothing.csv") == []


@pytest.mark.parametrize("source", ["nothing-here", "", "README.md"])
def test_other_paths_are_not_models(source):
    with pytest.raises(ModelError, match="gtzan"):
        load_model(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genres": list("abcdefghi")}, "copy both from one model"),
        ({"genres": ["a", "a"]}, "two or more distinct genres"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"format": 2}, "format"),
        ({"config": {"features": {"n_mfc": 3}}}, "n_mfcc"),
        ({"config": {}}, "damaged"),
    ],
)
def test_card_that_does_not_match_the_graph_is_rejected(copy, changes, message):
    card = json.loads((copy / CARD).read_text()) | changes
    (copy / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match=message):
        Classifier.load(copy)


def test_damaged_or_missing_files_are_named(copy):
    graphs = [(copy / name).read_bytes() for name in (MODEL, FRONTEND)]
    with pytest.raises(ModelError, match="invalid graph"):
        save_model(copy, b"not a network", graphs[1], json.loads((copy / CARD).read_text()))
    (copy / MODEL).write_bytes(graphs[0])
    (copy / CARD).write_text("{")
    with pytest.raises(ModelError, match="can't be read"):
        load_model(copy)
    (copy / CARD).unlink()
    with pytest.raises(ModelError, match=r"card\.json"):
        load_model(copy)


def test_public_names_are_importable():
    for name in musicclass.__all__:
        assert getattr(musicclass, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = musicclass.nothing
