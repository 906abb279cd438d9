"""`musicclass evaluate` and `musicclass compare`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile

from musicclass.evaluation.evaluate import compute_metrics, read_predictions
from musicclass.saved_model import PREDICTIONS, load_model
from tests.conftest import RATE, make_noise


def make_model(folder: Path, split: dict[str, str], **data) -> Path:
    """A copy of the pretrained model with another split: track -> subset,artist."""
    shipped = load_model("gtzan")
    folder.mkdir(parents=True)
    shutil.copy(shipped.path / "model.onnx", folder)
    card = {**shipped.card, "data": {**shipped.card["data"], **data}}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "split.csv").write_text("track,split,artist\n" + "".join(f"{k},{v}\n" for k, v in split.items()))
    return folder


@pytest.fixture
def songs(tmp_path):
    for number, genre in enumerate(("blues", "rock")):
        (tmp_path / "songs" / genre).mkdir(parents=True)
        for i in range(3):
            soundfile.write(tmp_path / "songs" / genre / f"{i}.wav", make_noise(2, seed=10 * number + i), RATE)
    return tmp_path / "songs"


def test_stored_metrics_match_stored_predictions():
    model = load_model("gtzan")
    metrics = compute_metrics(read_predictions(model.path / PREDICTIONS)["cv"], model.genres)
    stored = model.card["metrics"]["cv"]
    names = ("accuracy", "accuracy_ci95", "macro_f1", "log_loss", "ece", "accuracy_at_60pct_coverage", "unknown_rate")
    assert [metrics[name] for name in names] == [pytest.approx(stored[name]) for name in names]


def test_pretrained_model_shows_its_blind_test_before_cross_validation(run):
    status, out, err = run("evaluate", "gtzan")
    test, cv = out.split("\n\n", 1)
    assert (status, err) == (0, "")
    assert "290 tracks; 95% CI by artist" in test and "76.9%  [68.5%, 83.6%]" in test and "once, blind" in test
    assert "596 tracks; 95% CI by artist" in cv and "precision" in cv and "optimistic" in cv
    test, cv = json.loads(run("evaluate", "gtzan", "--json")[1])["evaluations"]
    assert test["metrics"]["accuracy"] == 0.769 and len(cv["records"]) == cv["metrics"]["n_tracks"] == 596


def test_report_is_self_contained(run, tmp_path):
    status, _, _ = run("evaluate", "gtzan", "--report", tmp_path / "report.html", "--plots", tmp_path / "plots")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert status == 0 and text.count('src="data:image/png;base64,') == 3
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "76.9%" in text and "75.7%" in text and "reggae" in text and "145 misclassified tracks" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"confusion_matrix.png", "reliability.png"}


def test_evaluation_on_data_warns_about_training_tracks_and_shared_artists(run, songs, tmp_path):
    split = {"blues/0.wav": "train,X", "blues/1.wav": "test,X", "rock/1.wav": "test,"}
    model = make_model(tmp_path / "m", split, split_name="mine.csv")
    (tmp_path / "artists.csv").write_text("track,artist\nblues/0.wav,X\nblues/1.wav,X\nblues/2.wav,X\nrock/0.wav,Y\n")
    status, out, err = run("evaluate", model, songs, "--artists", tmp_path / "artists.csv")
    assert status == 0 and err == "" and "(2 tracks" in out and "100% of the tracks of known artists" in out
    status, out, err = run("evaluate", model, songs, "--split", "all", "--artists", tmp_path / "artists.csv")
    assert status == 0 and "1 of 6 tracks were used in training gtzan; this is not a test result" in err
    assert "75% of the tracks of known artists share an artist with training" in out and "by artist" not in out
    status, _, err = run("evaluate", model, songs, "--subset", "valid")
    assert status == 2 and "no valid tracks" in err and "--split all" in err


def test_card_without_metrics_is_named(run, tmp_path):
    model = make_model(tmp_path / "m", {})
    metrics = {"cv": {"n_tracks": 9, "n_artists": 9, "macro_f1": 0.5}}
    card = json.loads((model / "card.json").read_text()) | {"metrics": metrics}
    (model / "card.json").write_text(json.dumps(card))
    status, _, err = run("evaluate", model)
    assert status == 2 and "card.json has no metrics with accuracy" in err and "on DATA" in err


@pytest.mark.parametrize("split", [{}, {"blues/7.wav": "test,"}, {"rock/0.wav": "train,"}])
def test_tracks_that_were_not_in_training_are_evaluated_by_default(run, songs, tmp_path, split):
    """Of a folder that has none of the model's test tracks."""
    model = make_model(tmp_path / "m", split | {"blues/x.wav": "train,"}, split_name="filtered")
    status, out, err = run("evaluate", model, songs)
    n_tracks = 5 if "rock/0.wav" in split else 6
    assert (status, err) == (0, "") and f"{n_tracks} tracks that the model wasn't trained on" in out


def test_genres_that_the_model_lacks_are_refused(run, songs):
    (songs / "rock").rename(songs / "fado")
    status, _, err = run("evaluate", "gtzan", songs, "--split", "all")
    assert status == 2 and "has genres that gtzan doesn't have: fado" in err


def test_runs_of_several_seeds_are_summarized(run, tmp_path):
    for seed in (1, 2):
        make_model(tmp_path / f"seed-{seed}", {})
    status, out, _ = run("evaluate", tmp_path)
    assert status == 0 and "2 seeds" in out and "seed-2" in out and "0.000" in out
    assert json.loads(run("evaluate", tmp_path, "--json")[1])["mean_and_std"]["accuracy"] == [0.769, 0]
    assert run("evaluate", tmp_path, "--report", tmp_path / "r.html")[0] == 2


def test_few_tracks_give_no_conclusion_and_genres_without_tracks_no_share(run, songs, tmp_path):
    model = make_model(tmp_path / "m", {"blues/1.wav": "test,", "rock/1.wav": "test,"})
    out = run("compare", model, model, songs)[1]
    assert "2 tracks: too few for a conclusion; evaluate 6 or more" in out and "[-100.0%, +100.0%]" in out
    out = run("evaluate", model, songs)[1]
    assert "too few tracks (under 5) for metrics of a genre: blues 1, classical 0" in out
    row = next(line for line in out.splitlines() if line.startswith("classical"))
    assert row.split()[1] == "–"


def test_comparison_uses_stored_predictions_or_the_first_models_split_of_data(run, songs, tmp_path):
    status, out, _ = run("compare", "gtzan", "gtzan")
    assert status == 0 and "596 tracks in common" in out and "p = 1: no significant difference" in out
    first = make_model(tmp_path / "a", {"blues/1.wav": "train,", "blues/0.wav": "test,", "rock/1.wav": "test,"})
    second = make_model(tmp_path / "b", {"rock/2.wav": "test,"})
    assert json.loads(run("compare", first, second, songs, "--json")[1])["n_tracks"] == 2
    status, out, err = run("compare", first, second, songs, "--subset", "train", "--json")
    assert status == 0 and json.loads(out)["n_tracks"] == 1 and err.count("not a test result") == 1
    status, _, err = run("compare", first, second)
    assert status == 2 and "give the DATA" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "gtzan", "--subset", "train"], "DATA"),
        (["compare", "gtzan", "gtzan", "--split", "artist"], "DATA"),
        (["evaluate", "gtzan", "missing"], "no such file"),
        (["evaluate", "gtzan", "--report", "report.pdf"], ".html"),
    ],
)
def test_wrong_usage_names_the_remedy(run, arguments, message):
    status, _, err = run(*arguments)
    assert status == 2 and message in err
