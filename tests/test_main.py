"""main.py, the student's commands."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from musicclass.saved_model import load_model
from tests.conftest import ROOT, make_music, make_noise

TINY = [
    "model.architecture=cnn_lstm", "model.filters=[4]", "model.time_pool=[4]", "model.freq_pool=[8]",
    "training.epochs=1", "features.window_seconds=1", "features.n_mfcc=13",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call main.py in an empty folder without a display."""
    monkeypatch.setenv("MPLBACKEND", "agg")

    def call(*arguments):
        command = [sys.executable, str(ROOT / "main.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return call


def test_metrics_are_shown_and_plots_written(run, tmp_path):
    done = run("--save")
    assert done.returncode == 0, done.stderr
    assert "accuracy                     76.9%  [68.5%, 83.6%]" in done.stdout
    assert {path.name for path in (tmp_path / "output_figures").iterdir()} == {"history.png", "confusion_matrix.png"}


def test_predict_and_wrong_usage(run, wav):
    done = run("--predict", str(wav(make_music(5))))
    assert done.returncode == 0 and "clip.wav" in done.stdout
    assert run("--predict", "missing.wav").returncode == 1
    done = run("--config", "baseline")
    assert done.returncode == 2 and "is for --retrain" in done.stderr
    done = run("--retrain")
    assert done.returncode == 2 and "genres_original" in done.stderr


@pytest.mark.slow
def test_retrained_model_is_used_and_kept_when_another_training_fails(run, tmp_path, wav):
    for i in range(4):
        wav(make_noise(2, seed=i), name=f"data/genres_original/hiss/{i}.wav")
        wav(make_music(2 + i / 2), name=f"data/genres_original/beat/{i}.wav")
    shutil.copytree(load_model("gtzan").path, tmp_path / "models" / "mine-001")  # an earlier one
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = run("--retrain", "--save", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Labels (rows)") == 1, "results are shown once"
    assert load_model(tmp_path / "models" / "mine-002").genres == ("beat", "hiss")
    assert run("--retrain", "--set", "training.epoch=1").returncode == 2
    done = run()
    assert "mine-002: " in done.stdout and "output_figures/history.png" in done.stdout, "there is no display"
    assert "hiss" in run("--predict", "data/genres_original/hiss/0.wav").stdout
