"""Models that use the tagger: embeddings reach the graph, tags and embeddings the results, on every way."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from musicclass import tagger
from musicclass.classifier import Classifier
from musicclass.errors import LibraryError
from musicclass.features import TrackFeatures, log_mel
from musicclass.library.run import ScanOptions
from musicclass.library.run import run as run_library
from musicclass.saved_model import MODEL, load_model, save_model
from tests.conftest import RATE, make_music

Z_SCORES = np.zeros(50)
Z_SCORES[[4, 12, 23]] = 4, 3, 2  # electronic, chillout, instrumental


class FakeTagger:
    """Embeddings are the RMS of the first and the second half of a patch, then zeros."""

    def run(self, names, inputs):
        halves = np.array_split(inputs["samples"], 2, axis=1)
        embeddings = np.zeros((len(halves[0]), tagger.EMBEDDING_SIZE), np.float32)
        embeddings[:, :2] = np.stack([np.sqrt(np.mean(half**2, axis=1)) for half in halves], axis=1)
        mean, std = tagger.tag_statistics()
        return [embeddings, np.tile(np.float32(mean + Z_SCORES * std), (len(embeddings), 1))]


def add_tagger_branch(content):
    """`gtzan`'s graph, with the mean of the first ten embedding values of a track added to the genres' log-odds."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name in ("probabilities", "window_probabilities"):
                node.output[i] = f"first_{name}"
    shift = [
        helper.make_node("Slice", ["embeddings", "zero", "ten", "axis"], ["first_ten"]),
        helper.make_node("ReduceMean", ["first_ten"], ["shift"], axes=[0], keepdims=0),
    ]
    for name in ("probabilities", "window_probabilities"):
        values = "shift" if name == "probabilities" else "first_ten"
        shift += [
            helper.make_node("Exp", [values], [f"odds_{name}"]),
            helper.make_node("Mul", [f"first_{name}", f"odds_{name}"], [f"product_{name}"]),
            helper.make_node("ReduceSum", [f"product_{name}", "last"], [f"sum_{name}"], keepdims=1),
            helper.make_node("Max", [f"sum_{name}", "tiny"], [f"total_{name}"]),
            helper.make_node("Div", [f"product_{name}", f"total_{name}"], [name]),
        ]
    graph.node.extend(shift)
    constants = {"zero": [0], "ten": [10], "axis": [1], "last": [-1]}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items())
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1e-30], np.float32), "tiny"))
    size = tagger.EMBEDDING_SIZE
    graph.input.append(helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n_windows", size]))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model that uses the tagger."""
    gtzan = load_model("gtzan")
    card = json.loads(json.dumps(gtzan.card)) | {"name": "music"}
    card["config"]["model"]["architecture"] += "+tagger"
    path = tmp_path_factory.mktemp("models") / "music"
    return save_model(path, add_tagger_branch((gtzan.path / MODEL).read_bytes()), b"", card).path


@pytest.fixture(autouse=True)
def fake_tagger(monkeypatch, tmp_path):
    (tmp_path / "tagger.onnx").touch()
    monkeypatch.setattr(tagger, "TAGGER", tmp_path / "tagger.onnx")
    monkeypatch.setattr(tagger, "_session", FakeTagger)


@pytest.fixture
def music_model(folder):
    return Classifier.load(folder)


def test_embeddings_tags_and_genre_come_from_the_tagger(music_model, gtzan, wav):
    path = wav(make_music(24))
    prediction, first_branch = music_model.predict(path), gtzan.predict(path)
    assert music_model.model.uses_tagger and not gtzan.model.uses_tagger
    assert prediction.embedding.shape == (200,) and prediction.embedding.dtype == np.float32
    assert (prediction.embedding[:2] > 0.1).all() and not prediction.embedding[2:].any()
    assert list(prediction.tags) == ["electronic", "chillout", "instrumental"]
    assert first_branch.embedding is None and first_branch.tags == {}
    assert prediction.probabilities["blues"] > first_branch.probabilities["blues"]
    assert music_model.predict_waveform(make_music(24), RATE) == dataclasses.replace(prediction, file=None)
    assert "embedding" not in json.loads(prediction.to_json())
    assert json.loads(prediction.to_json())["tags"] == pytest.approx(prediction.tags, rel=1e-5)


def test_frames_alone_are_predicted_by_the_first_branch(music_model, gtzan):
    track = TrackFeatures(log_mel(make_music(24), gtzan.model.features), 24.0)
    ours, theirs = music_model.predict_features(track), gtzan.predict_features(track)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
    assert ours.embedding is None and ours.tags == {}


def test_sampled_tracks_have_an_embedding_for_each_window(music_model, tmp_path):
    import soundfile

    path = tmp_path / "long.flac"
    soundfile.write(path, np.concatenate([make_music(60), 0.1 * make_music(60)]), RATE)
    prediction = music_model.predict(path, sampled=True)
    assert len(prediction.segments) == 4 and prediction.embedding is not None and prediction.tags
    loud, quiet = prediction.segments[0].probabilities, prediction.segments[-1].probabilities
    assert loud["blues"] != quiet["blues"]


def test_explanations_keep_the_embeddings(music_model, wav):
    explanation = music_model.explain(wav(make_music(12)))
    assert explanation.prediction.embedding is not None and np.abs(explanation.weights).max() > 0


def test_command_line_prints_tags(run, folder, wav):
    path = wav(make_music(12))
    status, out, _ = run("predict", path, "--model", folder)
    assert status == 0 and "tags        electronic, chillout, instrumental" in out
    _, out, _ = run("predict", path, "--model", folder, "--csv")
    assert next(csv.DictReader(io.StringIO(out)))["tags"] == "electronic, chillout, instrumental"
    _, out, _ = run("predict", path, "--model", folder, "--json")
    assert list(json.loads(out)["tags"]) == ["electronic", "chillout", "instrumental"]


@pytest.mark.skipif(not tagger.available(), reason="built without the tagger: python hatch_build.py")
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_tables_have_tags_and_embeddings(folder, wav, tmp_path, suffix, monkeypatch):
    monkeypatch.undo()  # workers are other processes
    path, out = wav(make_music(12), name="songs/clip.wav"), tmp_path / f"genres.{suffix}"
    options = ScanOptions(str(folder), workers=1, embeddings=True)
    run_library([str(path.parent)], out, options)
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        (row,) = parquet.read_table(out).to_pylist()
    else:
        row = json.loads(out.read_text())
    prediction = Classifier.load(folder).predict(path)
    assert row["tags"] == ", ".join(prediction.tags)
    np.testing.assert_allclose(row["embedding"], prediction.embedding, atol=1e-4)


def test_embeddings_are_refused_where_they_cannot_be(folder, tmp_path):
    with pytest.raises(LibraryError, match="gtzan has no embeddings"):
        run_library([str(tmp_path)], tmp_path / "genres.jsonl", ScanOptions("gtzan", embeddings=True))
    with pytest.raises(LibraryError, match=r"\.parquet or \.jsonl"):
        run_library([str(tmp_path)], tmp_path / "genres.csv", ScanOptions(str(folder), embeddings=True))
