"""Two models on the same tracks, several seeds, and the report."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import scipy.stats
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musicclass.bundle import load_bundle
from musicclass.cli import main
from musicclass.errors import DatasetError
from musicclass.training.compare import compare, sign_flip_p
from musicclass.training.evaluate import mean_and_deviation
from musicclass.training.fit import parts
from tests.conftest import RATE, make_noise

GENRES = ("a", "b")


def rows(right: str) -> list[dict]:
    """One track for each letter: y, told right, or n."""
    return [
        {"track": str(i), "genre": "a", "probabilities": [0.9, 0.1] if letter == "y" else [0.1, 0.9]}
        for i, letter in enumerate(right)
    ]


def test_against_a_hand_count():
    found = compare(rows("yyyyynnnnn"), rows("yyynnyyyyy"), GENRES, GENRES)
    assert (found["tracks"], found["only_first_right"], found["only_second_right"]) == (10, 2, 5)
    assert found["accuracy"] == [0.5, 0.8] and found["difference"] == pytest.approx(0.3)
    assert found["p"] == pytest.approx(58 / 128)  # 2 * (1 + 7 + 21) / 2 ** 7
    assert found["difference_95"][0] < 0.3 < found["difference_95"][1]


def test_a_model_is_no_better_than_itself():
    found = compare(rows("yyn"), rows("yyn"), GENRES, GENRES)
    assert found["p"] == 1 and found["difference_95"] == (0, 0)


def test_tracks_of_one_artist_are_won_together():
    ours, theirs = rows("nnnnnnyy"), rows("yyyyyyyn")
    assert compare(ours, theirs, GENRES, GENRES)["p"] == pytest.approx(16 / 128)  # 2 * (1 + 7) / 2 ** 7
    for row in ours:
        row["artist"] = "one" if int(row["track"]) < 6 else ""
    found = compare(ours, theirs, GENRES, GENRES)
    assert (found["tracks"], found["groups"], found["p"]) == (8, 3, 1)  # +6 and -1: all sums are 5 or 7 from 0
    assert compare(theirs, ours, GENRES, GENRES)["groups"] == 3, "an older card names no artists"


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9))
def test_sign_flips_against_scipy(differences):
    values = np.array(differences)
    reference = scipy.stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=10_000)
    assert sign_flip_p(values) == pytest.approx(reference.pvalue)


def test_models_with_genres_in_another_order():
    other = [{**row, "probabilities": row["probabilities"][::-1]} for row in rows("yn")]
    assert compare(rows("yn"), other, GENRES, GENRES[::-1])["difference"] == 0


def test_nothing_in_common():
    with pytest.raises(DatasetError, match="any common track"):
        compare(rows("y"), [], GENRES, GENRES)


def test_mean_and_deviation():
    assert mean_and_deviation([{"accuracy": 0.5}, {"accuracy": 0.7}])["accuracy"] == pytest.approx((0.6, 0.02**0.5))
    assert mean_and_deviation([{"accuracy": 0.5}])["accuracy"] == (0.5, 0)


def test_on_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["musicclass", "compare", "gtzan", "gtzan"])
    assert main() == 0
    out = capsys.readouterr().out
    assert "596 tracks" in out and "no difference" in out
    monkeypatch.setattr("sys.argv", ["musicclass", "compare", "gtzan", "gtzan", "--json"])
    assert main() == 0 and json.loads(capsys.readouterr().out)["p"] == 1


def test_models_with_splits_of_their_own_are_judged_on_the_tracks_of_the_first(tmp_path, capsys, monkeypatch):
    shipped, songs = load_bundle(), tmp_path / "songs"
    for genre in ("blues", "rock"):
        (songs / genre).mkdir(parents=True)
        for i in range(3):
            soundfile.write(songs / genre / f"{i}.wav", make_noise(3, seed=i), RATE)
    for name, seed, tested in (("first", 42, ["blues/0.wav", "rock/1.wav"]), ("second", 7, ["rock/2.wav"])):
        split = {"train": ["blues/1.wav"], "valid": [], "test": tested}
        data = {**shipped.card["data"], "split": split, "split_name": f"{name}.csv", "split_seed": seed}
        (tmp_path / name).mkdir()
        shutil.copy(shipped.path / "model.onnx", tmp_path / name)
        (tmp_path / name / "card.json").write_text(json.dumps({**shipped.card, "data": data}))
    command = ["musicclass", "compare", str(tmp_path / "first"), str(tmp_path / "second"), str(songs), "--json"]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0 and json.loads(capsys.readouterr().out)["tracks"] == 2
    monkeypatch.setattr("sys.argv", [*command, "--side", "train"])
    assert main() == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["tracks"] == 1 and told.err.count("this is no test result") == 2


def test_the_report_stands_alone(tmp_path, capsys, monkeypatch):
    page = tmp_path / "report.html"
    monkeypatch.setattr("sys.argv", ["musicclass", "evaluate", "gtzan", "--report", str(page)])
    assert main() == 0
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/png;base64,') == 5 and not re.search(r'(src|href)="(?!data:)', text)
    assert f"{load_bundle().card['metrics']['folds']['accuracy']:.1%}" in text and "reggae" in text
    monkeypatch.setattr("sys.argv", ["musicclass", "evaluate", "gtzan", "--report", str(tmp_path / "report.pdf")])
    assert main() == 2 and ".html" in capsys.readouterr().err


def test_models_of_several_networks_share_no_seed(tmp_path, monkeypatch):
    songs, out, seeds = tmp_path / "songs", tmp_path / "out", {}
    for genre in GENRES:
        (songs / genre).mkdir(parents=True)
        for i in range(10):
            soundfile.write(songs / genre / f"{i}.wav", make_noise(0.1, seed=i), RATE)

    def train(dataset, split, config, folder, *rest):
        seeds[folder.name] = [part.training.seed for part in parts(config) if part.model.network == "cnn_lstm"]
        return load_bundle()

    monkeypatch.setattr("musicclass.training.train.train", train)
    options = ["--out", str(out), "--seeds", "3", "--set", "model.members=2"]
    monkeypatch.setattr("sys.argv", ["musicclass", "train", str(songs), *options])
    assert main() == 0
    assert seeds == {"seed-1": [1, 2], "seed-3": [3, 4], "seed-5": [5, 6]}


def test_seeds_side_by_side(tmp_path, capsys, monkeypatch):
    shipped = load_bundle().path
    for seed in (1, 2):
        (tmp_path / f"seed-{seed}").mkdir()
        for name in ("card.json", "model.onnx"):
            shutil.copy(shipped / name, tmp_path / f"seed-{seed}")
    monkeypatch.setattr("sys.argv", ["musicclass", "evaluate", str(tmp_path)])
    assert main() == 0
    out = capsys.readouterr().out
    assert "2 seeds" in out and "seed-2" in out and "0.000" in out
