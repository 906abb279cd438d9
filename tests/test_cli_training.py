"""`musicclass train` and `musicclass extract-features`, with `evaluate` on their results."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT, make_music, make_noise


@pytest.mark.slow
def test_train_evaluate_and_extract_features(run, wav, tmp_path):
    for i in range(6):
        wav(make_noise(2, seed=i), name=f"data/hiss/{i}.wav")
        wav(make_music(2 + i / 2), name=f"data/beat/{i}.wav")
    (tmp_path / "data" / "beat" / "bad.mp3").write_bytes(b"not music")
    small = ["--set", "training.epochs=1", "--set", "model.filters=[4]", "--set", "model.time_pool=[4]"]
    small += ["--set", "model.freq_pool=[8]", "--set", "features.window_seconds=1", "--set", "features.n_mfcc=13"]
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "--out", "x"], "nowhere"),
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
