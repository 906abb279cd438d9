"""The command line as a person uses it: results, errors, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicclass import Classifier, walk
from musicclass.cli import main
from musicclass.prediction import Prediction, in_words
from tests.conftest import RATE, ROOT, make_music, make_noise


@pytest.fixture
def run(capsys, monkeypatch):
    """Call the command line in this process: exit status, stdout, stderr."""

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["musicclass", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main()
        out, err = capsys.readouterr()
        return status, out, err

    return call


def musicclass(*arguments, **options):
    command = [sys.executable, "-m", "musicclass", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_json_is_what_python_gives(run, wav):
    path = wav(make_music(12))
    status, out, err = run("predict", path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(Classifier.load().predict(path).to_json())


def test_jsonl_of_a_folder_with_a_bad_file(run, wav, tmp_path):
    for name in ("b.wav", "sub/a.wav"):
        wav(make_music(3), name=name)
    (tmp_path / "c.mp3").write_bytes(b"no music")
    (tmp_path / ".hidden.wav").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no music")
    status, out, err = run("predict", tmp_path, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [Path(row["file"]).name for row in rows] == ["b.wav", "c.mp3", "a.wav"]
    assert "not audio" in rows[1]["error"] and set(rows[1]) == {"file", "error"}
    assert rows[0]["probabilities"] == rows[2]["probabilities"]
    assert err.count("\n") == 1 and "c.mp3: not audio" in err


def test_the_same_alone_and_in_a_folder_and_again(wav, tmp_path):
    for i, name in enumerate("abc"):
        wav(make_noise(3, seed=i), name=f"{name}.wav")
    together = musicclass("predict", tmp_path, "--jsonl").stdout.splitlines()
    alone = [musicclass("predict", tmp_path / f"{name}.wav", "--jsonl").stdout.strip() for name in "abc"]
    assert together == alone


def test_csv(run, wav, tmp_path):
    wav(make_music(3), name='comma, quote".wav')
    (tmp_path / "x.mp3").write_bytes(b"")
    status, out, _ = run("predict", tmp_path, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 1 and len(rows) == 2
    assert rows[0]["file"].endswith('comma, quote".wav') and float(rows[0]["duration"]) == 3
    genres = Classifier.load().genres
    assert sum(float(rows[0][genre]) for genre in genres) == pytest.approx(1, abs=1e-5)
    assert rows[1]["genre"] == "" and "empty" in rows[1]["error"]


def test_table(run, wav):
    status, out, _ = run("predict", wav(make_music(12), name="song [live].wav"), "--top", "2")
    assert status == 0 and "song [live].wav" in out and "0:12" in out
    rows = [line for line in out.splitlines() if re.fullmatch(r"  \w+ +█* +\d+%", line)]
    assert len(rows) == 2 and out.count("█") > 5


def test_names_from_standard_input_and_patterns(run, wav, tmp_path):
    paths = [wav(make_music(2), name=name) for name in ("a.wav", "[b].wav")]
    _, out, _ = run("predict", "-", "--jsonl", stdin=f"{paths[0]}\n\n{paths[1]}\n")
    assert len(out.splitlines()) == 2
    _, out, _ = run("predict", tmp_path / "*.wav", "--jsonl")
    assert len(out.splitlines()) == 2
    status, out, _ = run("predict", paths[1], "--jsonl")
    assert status == 0
    status, _, err = run("predict", tmp_path / "*.mp3")
    assert status == 1 and "no such file" in err


def test_walk_goes_round_no_circle(tmp_path, wav):
    wav(make_noise(1), name="in/a.wav")
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    assert [Path(name).name for name in walk.files([str(tmp_path)])] == ["a.wav"]


def test_plot(run, wav, tmp_path):
    path = wav(make_music(12))
    status, _, err = run("predict", path, "--plot", tmp_path / "line.png")
    assert status == 0 and "line.png written" in err
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"
    wav(make_music(2), name="two.wav")
    assert run("predict", tmp_path, "--plot", tmp_path / "plots")[0] == 0
    assert len(list((tmp_path / "plots").glob("*.png"))) == 2
    wav(make_music(2), name="A$AP Ca$h " + "x" * 225 + ".wav")  # no mathematics, and as long as names may be
    wav(make_music(2), name="zz.wav")
    assert run("predict", tmp_path, "--plot", tmp_path / "more")[0] == 0
    assert len(list((tmp_path / "more").glob("*.png"))) == 4
    status, _, err = run("predict", path, "--plot", tmp_path / "line.gif")
    assert status == 2 and ".png" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "Missing argument"),
        (["predict", "a.wav", "--jason"], "No such option"),
        (["predict", "a.wav", "--top", "0"], "--top"),
        (["predict", "a.wav", "--json", "--csv"], "choose one"),
        (["predict", "a.wav", "--csv", "--explain"], "--jsonl"),
        (["predict", "a.wav", "b.wav", "--json"], "--jsonl"),
        (["predict", "a.wav", "--model", "nothing"], "gtzan"),
        (["train", "nowhere", "--out", "x"], "nowhere"),
        (["train", "tests", "--out", "x", "--set", "training.epoch=1"], "training.epochs"),
        (["train", "tests", "--out", "x", "--config", "studnet"], "student"),
        (["evaluate", "nothing"], "gtzan"),
        (["evaluate", "gtzan", "nowhere"], "nowhere"),
        (["evaluate", "gtzan", "--side", "train"], "DATA"),
        (["compare", "gtzan", "gtzan", "--split", "artist"], "DATA"),
        (["train", "pyproject.toml", "--out", "x"], "no .npz file"),
        (["serve", "--cors", "example.org"], "https://example.org"),
        (["features", "tests", "-o", "x.zip"], ".npz"),
        (["dance"], "No such command"),
    ],
)
def test_wrong_usage(run, arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out, err = run(*arguments)
    assert status == 2 and message in err and out == ""
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="such names are POSIX's")
def test_no_name_moves_the_cursor(run, wav, tmp_path):
    path = wav(make_music(2))
    Path(path).rename(tmp_path / "\x1b]0;mine\x07new\nline\x9b.wav")
    (tmp_path / "\x1b[31m.mp3").write_bytes(b"no music")
    status, out, err = run("predict", tmp_path, "--plot", tmp_path / "plots")
    assert status == 1 and r"\x1b]0;mine\x07new\nline\x9b.wav" in out and r"\x1b[31m.mp3" in err
    assert not set(out + err) & set("\x1b\x07\x9b")


def test_why_nothing_is_told(run, wav):
    path = wav(make_noise(3))
    assert "unknown: unlike the music this model knows; best guess" in run("predict", path)[1]
    assert "sure: unlike the music this model knows" in run("predict", path, "--min-confidence", "0")[1]
    known = Prediction("x", "unknown", "jazz", 0.96, 0.9, {"jazz": 0.96}, 3.0, (), "gtzan")
    assert in_words(known) == "unknown: only 96% sure; best guess jazz"


def test_missing_file(run):
    status, out, err = run("predict", "nowhere.wav")
    assert (status, out) == (1, "") and err == "nowhere.wav: no such file; check the name\n"


def test_a_folder_without_audio(run, tmp_path):
    status, out, err = run("predict", tmp_path)
    assert (status, out) == (1, "") and "folder without audio" in err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal and /dev/full")
def test_results_go_to_standard_output_alone(wav, tmp_path):
    """Also where stderr is a terminal that shows progress, and where the disk is full."""
    import pty

    for name in "ab":
        wav(make_noise(2), name=f"{name}.wav")
    master, slave = pty.openpty()
    with (tmp_path / "out.jsonl").open("wb") as out:
        command = [sys.executable, "-m", "musicclass", "predict", str(tmp_path / "*.wav"), "--jsonl"]
        subprocess.run(command, stdout=out, stderr=slave, check=True, timeout=60)
    assert [json.loads(line)["genre"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    os.close(slave)
    shown = os.read(master, 100_000)
    os.close(master)
    assert b"probabilities" not in shown and shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_version_and_help(run):
    assert run("--version")[1].startswith("musicclass 0.")
    status, out, _ = run("--help")
    assert status == 0 and all(name in out for name in ("predict", "train", "evaluate", "features"))


def test_help_and_import_are_light():
    code = "import sys, musicclass; sys.argv = ['musicclass', '--help']; from musicclass.cli import main; main(); "
    code += "print(sorted({'numpy', 'scipy', 'onnxruntime', 'soundfile', 'keras', 'rich.progress'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_predict_writes_nothing_anywhere(wav, tmp_path):
    """Such as the id that onnxruntime would keep of this device, to report by."""
    here = {name: str(tmp_path / "home") for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    (tmp_path / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORT_") and name != "CI"}
    command = [sys.executable, "-m", "musicclass", "predict", str(wav(make_music(2)))]
    subprocess.run(command, env=kept | here, check=True, stdout=subprocess.PIPE)
    assert not list((tmp_path / "home").iterdir())


def test_predict_needs_no_training_library(wav):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("keras", "tensorflow", "sklearn", "librosa", "matplotlib"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["musicclass", "predict", {str(wav(make_music(2)))!r}, '--jsonl']
from musicclass.cli import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "genre" in json.loads(done.stdout)
    blocked = subprocess.run(
        [sys.executable, "-c", code.replace("'--jsonl'", "'--plot', 'x.png'")], capture_output=True, text=True
    )
    assert blocked.returncode == 2 and "musicclass[plot]" in blocked.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c(wav, tmp_path):
    the_one = wav(make_music(20), name="the one.wav")
    for i in range(400):
        (tmp_path / f"{i:03}.wav").symlink_to(the_one)
    command = [sys.executable, "-m", "musicclass", "predict", str(tmp_path), "--jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    rows = [json.loads(line) for line in (first + out).splitlines()]
    assert 0 < len(rows) < 400


@pytest.mark.skipif(os.name == "nt", reason="pipes differ on Windows")
def test_a_reader_that_leaves_early(wav, tmp_path):
    for i in range(30):
        wav(make_noise(2, seed=i), name=f"{i}.wav")
    done = subprocess.run(
        f"{sys.executable} -m musicclass predict {tmp_path} --jsonl | head -n 1",
        shell=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")
def test_odd_names(tmp_path):
    import shutil

    import soundfile

    soundfile.write(tmp_path / "x.wav", make_noise(1.5), RATE)
    for name in (b"new\nline.wav", "🎵.wav".encode(), b"-dash.wav", b"latin\xe9.wav"):
        shutil.copy(os.fsencode(tmp_path / "x.wav"), os.fsencode(tmp_path) + b"/" + name)
    (tmp_path / "x.wav").unlink()
    done = musicclass("predict", tmp_path, "--jsonl")
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4
    assert musicclass("predict", "--jsonl", "--", "-dash.wav", cwd=tmp_path).returncode == 0


def test_train_evaluate_features_from_start_to_end(run, wav, tmp_path):
    for i in range(6):
        wav(make_noise(2, seed=i), name=f"data/hiss/{i}.wav")
        wav(make_music(2 + i / 2), name=f"data/beat/{i}.wav")
    (tmp_path / "data" / "beat" / "bad.mp3").write_bytes(b"no music")
    small = ["--set", "training.epochs=1", "--set", "model.filters=[4]", "--set", "model.time_pool=[4]"]
    small += ["--set", "model.band_pool=[8]", "--set", "features.window_seconds=1", "--set", "features.n_mfcc=13"]
    status, out, err = run("train", tmp_path / "data", "--out", tmp_path / "run", *small)
    assert status == 0 and "bad.mp3 is left out" in err and "accuracy" in out
    status, out, _ = run("predict", tmp_path / "data" / "hiss" / "0.wav", "--json", "--model", tmp_path / "run")
    assert status == 0 and json.loads(out)["model"] == "run"
    status, out, _ = run("evaluate", tmp_path / "run", "--json")
    card = json.loads(out)
    assert status == 0 and len(card["predictions"]) == card["tracks"]
    status, out, err = run("evaluate", tmp_path / "run", tmp_path / "data", "--json")
    again = json.loads(out)
    assert status == 0 and again["predictions"] == card["predictions"] and again["seen_in_training"] == []
    status, out, err = run("evaluate", tmp_path / "run", tmp_path / "data", "--split", "all", "--plots", tmp_path / "p")
    assert status == 0 and "no test result" in err and "(12 tracks" in out
    assert (tmp_path / "p" / "reliability.png").exists()
    status, _, err = run("features", tmp_path / "data", "-o", tmp_path / "data.npz")
    assert status == 1 and "12 of 13 tracks" in err
    status, out, _ = run("evaluate", tmp_path / "run", tmp_path / "data.npz", "--split", "all", "--json")
    assert status == 0 and json.loads(out)["tracks"] == 12
    status, _, err = run("train", tmp_path / "data.npz", "--out", tmp_path / "run", *small)
    assert status == 2 and "already holds a model" in err


def test_evaluate_shows_what_ships(run):
    status, out, err = run("evaluate", "gtzan")
    assert status == 0 and "596 tracks" in out and "no test result yet" in err


def test_every_command_of_the_readme_exists():
    """Commands in the README's code blocks use options that the program knows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    commands = [line.split() for line in lines if line.startswith("musicclass ")]
    assert len(commands) >= 8
    options = {}
    for name in {words[1] for words in commands if not words[1].startswith("-")}:
        options[name] = musicclass(name, "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    for words in commands:
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option in options[words[1]], f"{' '.join(words)}: {option}"
