"""`musicclass train` and `musicclass extract-features`, with `evaluate` on their results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from musicclass.config import FeatureConfig
from musicclass.datasets import Track, feature_archive
from musicclass.features import TrackFeatures
from musicclass.saved_model import load_model
from musicclass.tagger import EMBEDDING_SIZE, TrackEmbeddings
from tests.conftest import ROOT, make_music, make_noise


@pytest.mark.slow
def test_train_evaluate_and_extract_features(run, wav, tmp_path):
    for i in range(6):
        wav(make_noise(2, seed=i), name=f"data/hiss/{i}.wav")
        wav(make_music(2 + i / 2), name=f"data/beat/{i}.wav")
    (tmp_path / "data" / "beat" / "bad.mp3").write_bytes(b"not music")
    settings = ("training.epochs=1", "model.filters=[4]", "model.time_pool=[4]", "model.freq_pool=[8]")
    settings += ("features.window_seconds=1", "features.n_mfcc=13")
    small = ["--config", "default", *(word for setting in settings for word in ("--set", setting))]
    status, out, err = run("train", tmp_path / "data", "--out", tmp_path / "run", *small)
    assert status == 0 and "bad.mp3" in err and "accuracy" in out
    status, out, _ = run("predict", tmp_path / "data" / "hiss" / "0.wav", "--json", "--model", tmp_path / "run")
    assert status == 0 and json.loads(out)["model"] == "run"
    status, out, _ = run("evaluate", tmp_path / "run", "--json")
    assert status == 0 and json.loads(out)
    status, out, _ = run("evaluate", tmp_path / "run", tmp_path / "data", "--split", "all", "--plots", tmp_path / "p")
    assert status == 0 and "(12 tracks" in out and (tmp_path / "p" / "reliability.png").exists()
    status, _, err = run("extract-features", tmp_path / "data", "-o", tmp_path / "data.npz")
    assert status == 1 and "12 of 13 tracks" in err
    status, out, _ = run("evaluate", tmp_path / "run", tmp_path / "data.npz", "--split", "all", "--json")
    assert status == 0
    status, _, err = run("train", tmp_path / "data.npz", "--out", tmp_path / "run", *small)
    assert status == 2 and "already" in err


@pytest.mark.slow
def test_several_data_sets_are_one(run, tmp_path):
    """Archives with embeddings, whose tracks have sources and labels of low confidence; one genre isn't wanted."""
    rng = np.random.default_rng(0)
    for name, source in (("old", ""), ("new", "radio")):
        items = []
        for i in range(24):
            genre = i % 3
            track = Track(f"{i}", ("fado", "polka", "tango")[genre], f"{name} {i // 6}", source=source)
            track = replace(track, confidence="low" if i > 20 else "high")
            vectors = rng.standard_normal((2, EMBEDDING_SIZE), dtype=np.float32)
            vectors[:, genre::3] += 1
            frames = rng.normal(-40, 8, (140, 112)).astype(np.float32)
            items.append((track, TrackFeatures(frames, 6.0, TrackEmbeddings(vectors, np.array([[0, 3], [3, 6.0]])))))
        feature_archive.write(tmp_path / f"{name}.npz", items, FeatureConfig())
    data, settings = [tmp_path / "old.npz", tmp_path / "new.npz"], []
    for setting in (
        'training.genres=["fado", "tango"]', "training.calibration_folds=2", "training.label_weights=[1.0, 1.0, 0.3]",
        "model.architecture=lda+tagger", "features.n_mfcc=12", "features.window_seconds=2", "features.norm_seconds=4",
    ):  # fmt: skip
        settings += ["--set", setting]
    status, out, err = run("train", *data, "--out", tmp_path / "model", *settings)
    assert status == 0 and "old+new: 2 genres; artist split: 32 train" in err and "macro recall" in out
    model = load_model(tmp_path / "model")
    rows = model.read_table("split.csv")
    assert {row["track"].split("/")[0] for row in rows} == {"old", "new"} and len(rows) == 32
    metrics = model.card["metrics"]["cv"]
    assert set(metrics["sources"]) == {"old", "radio"} and metrics["n_tracks"] == 28  # without low confidence
    status, out, err = run("cross-validate", *data, "--by", "source", "--out", tmp_path / "cv", *settings)
    assert status == 0 and "old: accuracy" in out and "radio: accuracy" in out and "first branch alone" in out
    metrics = json.loads((tmp_path / "cv" / "metrics.json").read_text())["metrics"]
    assert set(metrics) == {"lda+tagger", "first branch", "lda", "tagger"} and metrics["tagger"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "--out", "x"], "nowhere"),
        (["train", "tests", "--out", "pyproject.toml/x"], "--out pyproject.toml/x: can't be written (Not a directory)"),
        (["train", "tests", "--out", "x", "--set", "training.epoch=1"], "training.epochs"),
        (["train", "tests", "--out", "x", "--config", "basline"], "baseline"),
        (["train", "pyproject.toml", "--out", "x"], "not an .npz file"),
        (["extract-features", "tests", "-o", "x.zip"], ".npz"),
    ],
)
def test_usage_errors_name_the_remedy(run, arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out, err = run(*arguments)
    assert status == 2 and message in err and out == "" and "Traceback" not in err
