"""Saved models: what the package contains, verification, and damaged files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_node, make_tensor_value_info

import musicclass
from musicclass import onnx_session
from musicclass.classifier import Classifier
from musicclass.errors import ModelError
from musicclass.saved_model import (
    CARD,
    FRONTEND,
    HISTORY,
    MODEL,
    PREDICTIONS,
    SPLIT,
    list_pretrained,
    load_model,
    save_model,
)


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
        ({"genres": list("abcdefghi"), "metrics": {}}, "copy both from one model"),
        ({"genres": ["a", "a"]}, "two or more distinct genres"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"format": 2}, "format"),
        ({"config": {"features": {"n_mfc": 3}, "model": {"architecture": "lda"}}}, "n_mfcc"),
        ({"config": {}}, "damaged"),
        ({"genres": "electronic"}, "genres must be of type list"),
        ({"genres": ["a", "unknown"]}, "genres must be .* none of them unknown"),
        ({"genres": ["a", "b\x1b[2J\n"]}, "genres must be printable"),
        ({"genres": ["a", 3]}, "genres must be printable"),
        ({"name": None}, "name must be of type str"),
        ({"metrics": {"test": {}}}, r"metrics\.test\.n_tracks must be there"),
        ({"metrics": {"test": {"n_tracks": 3, "n_artists": 3, "accuracy": 1.5}}}, r"accuracy must be in \[0, 1\]"),
        ({"metrics": {"cv": {"n_tracks": 3, "n_artists": 3, "confusion_matrix": [[3]]}}}, "confusion_matrix must be"),
        ({"calibration": {"temperature": float("nan")}}, "NaN isn't a finite number"),
        ({"config": {"features": {"n_fft": 2**40}, "model": {"architecture": "lda"}}}, "n_fft must be in"),
        ({"config": {"features": {"hop_length": 1}, "model": {"architecture": "lda"}}}, "at most 20000 frames"),
    ],
)
def test_card_that_does_not_match_the_graph_is_rejected(copy, changes, message):
    card = json.loads((copy / CARD).read_text()) | changes
    (copy / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match=message) as error:
        Classifier.load(copy)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize("field", ["name", "genres", "config", "data", "metrics", "sha256"])
def test_missing_field_of_the_card_is_named(copy, field):
    card = json.loads((copy / CARD).read_text())
    del card[field]
    (copy / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match=rf"card\.json: damaged \({field}.* must be there"):
        load_model(copy)


def test_card_may_have_a_byte_order_mark_and_nested_json_is_an_error(copy):
    text = (copy / CARD).read_text(encoding="utf-8")
    (copy / CARD).write_text(text, encoding="utf-8-sig")
    assert load_model(copy).name == "music"
    (copy / CARD).write_text(text + " " * 10**7)
    with pytest.raises(ModelError, match=r"card\.json has .* bytes, more than 10,000,000"):
        load_model(copy)
    for damaged in (text.replace('"format"', '"x": ' + 10**5 * "[" + 10**5 * "]" + ', "format"'), '{"format": 1e999}'):
        (copy / CARD).write_text(damaged, encoding="utf-8")
        with pytest.raises(ModelError, match="can't be read"):
            load_model(copy)


def _external(graph):
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")


def _domain(graph):
    graph.node[0].domain = "com.example"


def _fixed(dimension, size):
    return lambda graph: graph.input[0].type.tensor_type.shape.dim[dimension].__setattr__("dim_value", size)


def _familiarity(nodes, **constants):
    """Compute familiarity from the true one, `before`, by further nodes with these constants."""

    def change(graph):
        node = next(node for node in graph.node if "familiarity" in node.output)
        node.output[0] = "before"
        graph.initializer.extend(onnx.numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
        graph.node.extend(nodes)

    return change


def _endless_loop():
    """A body that passes on a condition and a number."""
    values = [("step", onnx.TensorProto.INT64), ("on", onnx.TensorProto.BOOL), ("x", onnx.TensorProto.FLOAT)]
    inputs = [make_tensor_value_info(*value, []) for value in values]
    outputs = [make_tensor_value_info(f"{name}2", kind, []) for name, kind in values[1:]]
    body = make_graph([make_node("Identity", [name], [f"{name}2"]) for name in ("on", "x")], "body", inputs, outputs)
    return make_node("Loop", ["steps", "true", "before"], ["familiarity"], body=body)


LARGE = [make_node("ConstantOfShape", ["n"], ["x"]), make_node("ReduceMax", ["x"], ["familiarity"], keepdims=0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external, "external data"),
        (_domain, "com.example"),
        (_fixed(0, 1), r"model\.onnx: fails"),
        (_fixed(1, 241), r"model\.onnx: fails"),
        (_familiarity([make_node("Mul", ["before", "c"], ["familiarity"])], c=np.float32("nan")), "aren't in"),
        (_familiarity(LARGE, n=[2**32]), "memory"),
        (_familiarity([_endless_loop()], steps=2**40, true=True), "terminate"),
    ],
    ids=["external", "domain", "batch", "length", "nan", "memory", "time"],
)
def test_graphs_that_are_hostile_or_fail_are_refused(tmp_path, capfd, monkeypatch, change, message):
    monkeypatch.setattr(onnx_session, "MAX_SECONDS", 1.0)
    gtzan = load_model("gtzan")
    model = onnx.load(gtzan.path / MODEL)
    change(model.graph)
    with pytest.raises(ModelError, match=message) as error:
        save_model(tmp_path, model.SerializeToString(), b"", gtzan.card)
    assert str(tmp_path) in str(error.value)
    assert capfd.readouterr() == ("", "")


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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (SPLIT, "track,subset\na,train\n", "a row has no split"),
        (SPLIT, "track,split,artist\na,train\n", "a row has no artist"),
        (SPLIT, "track,split,artist\na,\xff,\n", "can't be read"),
        (HISTORY, "epoch,loss\n1,much\n", "can't be read"),
        (HISTORY, "epoch,loss\n1,2,3\n", "can't be read"),
    ],
)
def test_damaged_tables_are_named(copy, name, text, message):
    (copy / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=rf"{name}: {message}"):
        load_model(copy).read_table(name)


def test_public_names_are_importable():
    for name in musicclass.__all__:
        assert getattr(musicclass, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = musicclass.nothing
