from __future__ import annotations

import json
import shutil

import pytest

import musicclass
from musicclass.bundle import CARD, MODEL, load_bundle, pretrained_names, save_bundle
from musicclass.classifier import Classifier
from musicclass.errors import BundleError
from musicclass.library.run import Options
from musicclass.printing import metrics_table


@pytest.fixture
def copy(tmp_path):
    """A copy of the bundle that ships."""
    return shutil.copytree(load_bundle().path, tmp_path / "copy")


def edit(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    card.update(changes)
    (folder / CARD).write_text(json.dumps(card))


def test_what_ships():
    assert pretrained_names() == ["gtzan"]
    bundle = load_bundle()
    assert len(bundle.genres) == 10 and bundle.name == "gtzan"
    assert (bundle.path / MODEL).stat().st_size <= 8e6
    side = bundle.card["data"]["split"]
    assert len(side["train"]) == 639 and not side["valid"]
    assert len(bundle.card["predictions"]["folds"]) == 596 and bundle.card["config"]["model"]["members"] == 2


def test_a_card_without_confidence_serves_a_library_too(copy):
    card = json.loads((copy / CARD).read_text())
    del card["confidence"]
    (copy / CARD).write_text(json.dumps(card))
    plain, shipped = Options().settings(load_bundle(copy)), Options().settings(load_bundle())
    assert plain[0] != shipped[0] and plain[1] == shipped[1]


def test_genres_with_brackets_are_printed_as_they_are(copy, capsys):
    """They are names of folders, and no markup."""
    metrics = load_bundle(copy).card["metrics"]["folds"]
    names = ("rock [live]", "[/]x", *load_bundle(copy).genres[2:])
    renamed = {"genres": dict(zip(names, metrics["genres"].values(), strict=True))}
    metrics_table(metrics | renamed, names, "[title]")
    out = capsys.readouterr().out
    assert "rock [live]" in out and "[/]x" in out and "[title]" in out


def test_a_copy_works_the_same(copy):
    assert load_bundle(copy).card == load_bundle().card
    Classifier.load(copy)


def test_saved_is_loaded(copy, tmp_path):
    bundle = load_bundle(copy)
    again = save_bundle(tmp_path / "again", (copy / MODEL).read_bytes(), bundle.card)
    assert again.genres == bundle.genres and again.features == bundle.features


@pytest.mark.parametrize("source", ["nothing-here", "", "README.md"])
def test_no_bundle(source):
    with pytest.raises(BundleError, match="gtzan"):
        load_bundle(source)


def test_damaged_bundles(copy):
    good = load_bundle(copy).card
    for changes, message in [
        ({"genres": list(reversed(good["genres"]))[:9]}, "don't belong together"),
        ({"genres": ["a", "a"]}, "two different genres"),
        ({"sha256": "0" * 64}, "not the one"),
        ({"format": 99}, "format"),
        ({"config": {"features": {"n_mfc": 3}}}, "n_mfcc"),
        ({"config": {}}, "damaged"),
    ]:
        edit(copy, **{**good, **changes})
        with pytest.raises(BundleError, match=message):
            Classifier.load(copy)
    edit(copy, **good)
    (copy / MODEL).write_bytes(b"not a network")
    with pytest.raises(BundleError, match="not the one"):
        load_bundle(copy)
    (copy / CARD).write_text("{")
    with pytest.raises(BundleError, match="can't be read"):
        load_bundle(copy)
    (copy / CARD).unlink()
    with pytest.raises(BundleError, match=r"card\.json"):
        load_bundle(copy)


def test_a_network_that_is_none(copy):
    good = load_bundle(copy).card
    with pytest.raises(BundleError, match="can't be run"):
        save_bundle(copy, b"not a network", good)


def test_public_names():
    assert musicclass.__all__ == [
        "AudioConfig", "AudioError", "Bundle", "BundleError", "Classifier", "Config", "ConfigError", "DatasetError",
        "FeatureConfig", "LibraryError", "ModelConfig", "MusicClassError", "Prediction", "Segment", "TrainConfig",
        "load_bundle",
    ]  # fmt: skip
    for name in musicclass.__all__:
        assert getattr(musicclass, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = musicclass.nothing
