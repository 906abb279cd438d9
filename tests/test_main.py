"""main.py, the student's interface."""

from __future__ import annotations

import subprocess
import sys

import pytest

from musicclass.bundle import load_bundle
from tests.conftest import ROOT, make_music, make_noise

TINY = [
    "training.epochs=1", "model.filters=[4]", "model.time_pool=[4]", "model.band_pool=[8]",
    "features.window_seconds=1", "features.n_mfcc=13",
]  # fmt: skip


def run(folder, *arguments):
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_save(tmp_path):
    done = run(tmp_path, "--save")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "output_figures").iterdir()} == {"history.png", "confusion_matrix.png"}
    assert "accuracy" in done.stdout


def test_without_a_display_the_plots_are_written_with_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    done = run(tmp_path)
    assert done.returncode == 0 and "no display" in done.stderr
    assert (tmp_path / "output_figures" / "history.png").exists()


def test_predict(tmp_path, wav):
    done = run(tmp_path, "--predict", str(wav(make_music(5))))
    assert done.returncode == 0 and "clip.wav" in done.stdout
    assert run(tmp_path, "--predict", "nowhere.wav").returncode == 1


@pytest.fixture
def data(wav):
    for i in range(4):
        wav(make_noise(2, seed=i), name=f"data/genres_original/hiss/{i}.wav")
        wav(make_music(2 + i / 2), name=f"data/genres_original/beat/{i}.wav")


def test_retrain(tmp_path, data):
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = run(tmp_path, "--retrain", "--save", *settings)
    assert done.returncode == 0, done.stderr
    first = load_bundle(tmp_path / "models" / "mine")
    assert first.genres == ("beat", "hiss")
    assert run(tmp_path, "--retrain", "--set", "training.epoch=1").returncode == 2
    assert load_bundle(tmp_path / "models" / "mine").card == first.card
    assert run(tmp_path, "--retrain", "--save", *settings, "--set", "training.seed=7").returncode == 0
    assert load_bundle(tmp_path / "models" / "mine").card["config"]["training"]["seed"] == 7
    assert "hiss" in run(tmp_path, "--predict", "data/genres_original/hiss/0.wav").stdout


def test_retrain_without_data_says_where_it_belongs(tmp_path):
    done = run(tmp_path, "--retrain")
    assert done.returncode == 2 and "genres_original" in done.stderr
