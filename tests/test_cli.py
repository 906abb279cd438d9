"""The command line: predict, output formats, errors, exit statuses, help."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from rich.cells import cell_len
from rich.console import Console

from musicclass import Classifier, plots
from musicclass.cli.predict import PredictionWriter
from tests.conftest import RATE, ROOT, make_music, make_noise

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def musicclass(*arguments, **options):
    """Run the command line in another process."""
    command = [sys.executable, "-m", "musicclass", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_json_equals_the_python_api(run, wav):
    path = wav(make_music(12))
    status, out, err = run("predict", path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(Classifier.load().predict(path).to_json())
    digits = re.findall(r"\d+\.\d+(?:e-?\d+)?", out)
    assert len(digits) > 30 and all(float(text) == float(f"{float(text):.6g}") for text in digits)


def test_jsonl_of_a_folder_continues_after_errors(run, wav, tmp_path):
    for name in ("b.wav", "sub/a.wav"):
        wav(make_music(3), name=name)
    (tmp_path / "c.mp3").write_bytes(b"not music")
    status, out, err = run("predict", tmp_path, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and [Path(row["file"]).name for row in rows] == ["b.wav", "c.mp3", "a.wav"]
    assert "not audio" in rows[1]["error"] and set(rows[1]) == {"file", "error"}
    assert rows[0]["probabilities"] == rows[2]["probabilities"]
    assert err.count("\n") == 1 and "c.mp3: not audio" in err


def test_predictions_do_not_depend_on_other_files_of_a_run(wav, tmp_path):
    paths = [wav(make_noise(3, seed=i), name=f"{i}.wav") for i in range(2)]
    together = musicclass("predict", tmp_path, "--jsonl").stdout.splitlines()
    assert together == [musicclass("predict", path, "--jsonl").stdout.strip() for path in paths]


def test_csv_has_confidence_familiarity_and_probabilities(run, wav, tmp_path):
    path = wav(make_music(3), name='comma, quote".wav')
    (tmp_path / "x.mp3").write_bytes(b"")
    status, out, _ = run("predict", tmp_path, "--csv")
    first, second = csv.DictReader(io.StringIO(out))
    genres = Classifier.load().genres
    columns = ["file", "genre", "top_genre", "confidence", "familiarity", "duration", "seconds_lost", "tags"]
    assert status == 1 and list(first) == [*columns, *(f"prob_{genre}" for genre in genres), "error"]
    prediction = Classifier.load().predict(path)
    assert (first["file"], first["genre"], first["top_genre"]) == (str(path), prediction.genre, prediction.top_genre)
    numbers = {name: getattr(prediction, name) for name in columns[3:6]}
    numbers |= {f"prob_{genre}": value for genre, value in prediction.probabilities.items()}
    assert {name: float(first[name]) for name in numbers} == pytest.approx(numbers, abs=1e-6)
    assert second["genre"] == "" and "empty" in second["error"]


def test_seconds_lost_are_in_json_csv_tables_and_the_terminal(run, wav, tmp_path):
    path = wav(make_music(8))
    path.write_bytes(path.read_bytes()[: 40 + 6 * 22_050 * 4])
    status, out, err = run("predict", path, "--json")
    assert status == 0 and json.loads(out)["seconds_lost"] == pytest.approx(2, abs=0.01)
    assert f"{path}: damaged, 2.0 of 8.0 s are lost" in err
    (row,) = csv.DictReader(io.StringIO(run("predict", path, "--csv")[1]))
    assert float(row["seconds_lost"]) == pytest.approx(2, abs=0.01)
    status, _, err = run("library", path, "--out", tmp_path / "genres.csv")
    (row,) = csv.DictReader((tmp_path / "genres.csv").open())
    assert status == 0 and float(row["seconds_lost"]) == pytest.approx(2, abs=0.01)
    assert "1 damaged file analysed in part" in err
    assert Classifier.load().explain(path).prediction.seconds_lost == pytest.approx(2, abs=0.01)


def test_table_shows_the_top_genres_as_bars(run, wav):
    status, out, _ = run("predict", wav(make_music(12), name="song [live].wav"), "--top", "2")
    assert status == 0 and "song [live].wav" in out and "0:12" in out
    assert re.search(r"  segments    0:00 \w+(, 0:06 \w+)?\n", out)  # without colors, the times
    assert len([line for line in out.splitlines() if re.fullmatch(r"  \w+ +█* +\d+%", line)]) == 2


@pytest.mark.parametrize(
    ("colors", "no_color", "drawn"), [("truecolor", "", True), ("standard", "", False), ("256", "1", False)]
)  # fmt: skip
def test_timeline_is_drawn_where_colors_are_distinct_and_names_have_them(wav, monkeypatch, colors, no_color, drawn):
    monkeypatch.setenv("NO_COLOR", no_color)
    classifier = Classifier.load("gtzan")
    writer, stream = PredictionWriter("table", classifier, 3), io.StringIO()
    writer.console = Console(file=stream, force_terminal=True, color_system=colors, width=200)
    writer.result(classifier.predict(wav(make_music(12))), None)
    segments = stream.getvalue().splitlines()[-1]
    assert ("▀" in segments) == drawn and ("0:00 " in segments) != drawn
    if drawn:
        colored = re.search(r"\x1b\[([\d;]+)m▀+\x1b\[0m.*\x1b\[([\d;]+)m\w+\x1b", segments)
        assert colored and colored[1] == colored[2]


def test_wide_names_are_aligned(wav, capsys):
    classifier = Classifier.load("gtzan")
    classifier.genres = ("ブルース", "ポップ", *classifier.genres[2:])
    writer = PredictionWriter("table", classifier, 10)
    writer.result(classifier.predict(wav(make_music(3))), None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    assert len(lines) == 10 and len({cell_len(line) for line in lines}) == 1


def test_names_from_standard_input_and_patterns(run, wav, tmp_path):
    paths = [wav(make_music(2), name=name) for name in ("a.wav", "[b].wav")]
    for arguments, stdin in ((["-"], f"{paths[0]}\n\n{paths[1]}\n"), ([tmp_path / "*.wav"], ""), (paths, "")):
        status, out, _ = run("predict", *arguments, "--jsonl", stdin=stdin)
        assert status == 0 and len(out.splitlines()) == 2
    assert run("predict", paths[1], "--jsonl")[0] == 0  # not a pattern
    for name, message in (("*.mp3", "no such file"), ("nowhere.wav", "no such file"), ("", "folder without audio")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        status, out, err = run("predict", tmp_path / "empty" / name)
        assert (status, out) == (1, "") and message in err and err.count("\n") == 1


def test_a_plot_that_cannot_be_written_is_one_line(run, wav, tmp_path):
    wav(make_music(2), name=f"songs/{'a' * 248}.wav")
    wav(make_music(2), name="songs/b.wav")
    status, out, err = run("predict", tmp_path / "songs", "--plot", tmp_path / "plots")
    assert status == 1 and "b.wav" in out and err.count("the plot can't be written (File name too long)") == 1
    assert (tmp_path / "plots" / "b.wav.png").exists()


@pytest.mark.filterwarnings("error::UserWarning")
def test_fonts_that_lack_characters_are_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "_add_cjk_fonts", lambda: None)
    figure = plots.confusion_matrix([[1, 0], [0, 1]], ["\u9cf4", "\u97f3\u6a02"])
    with pytest.warns(UserWarning, match="no font here has all of its characters") as warned:
        plots.save(figure, tmp_path / "plot.png")
    assert len(warned) == 1


@linux
def test_plots_need_no_home_and_replace_files(wav, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "MPL"))} | {"HOME": "/proc/nobody"}
    for _ in range(2):
        done = musicclass("predict", wav(make_music(2)), "--plot", tmp_path / "plot.png", env=environment)
        assert (done.returncode, done.stderr) == (0, f"{tmp_path / 'plot.png'} written\n")


def test_plots_of_one_file_and_of_a_folder(run, wav, tmp_path):
    path = wav(make_music(2), name="A$AP Ca$h " + "x" * 225 + ".wav")  # neither mathematics nor too long
    status, _, err = run("predict", path, "--plot", tmp_path / "plot.svg")
    assert status == 0 and "plot.svg written" in err and b"<svg" in (tmp_path / "plot.svg").read_bytes()
    wav(make_music(2), name="sub/two.wav")
    assert run("predict", tmp_path, "--plot", tmp_path / "plots")[0] == 0
    names = {str(plot.relative_to(tmp_path / "plots")) for plot in (tmp_path / "plots").rglob("*.png")}
    assert names == {path.name + ".png", "sub/two.wav.png"}
    assert run("predict", path, "--plot", tmp_path / "plots" / "sub")[0] == 0
    assert (tmp_path / "plots" / "sub" / f"{path.name}.png").exists()
    for source, target, message in ((path, "plot.gif", ".png"), (tmp_path, "plot.png", "takes a folder")):
        status, _, err = run("predict", source, "--plot", tmp_path / target)
        assert status == 2 and message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "Missing argument"),
        (["predict", "a.wav", "--jason"], "No such option"),
        (["predict", "a.wav", "--top", "0"], "--top"),
        (["predict", "a.wav", "--json", "--csv"], "choose one"),
        (["predict", "a.wav", "--csv", "--explain"], "--jsonl"),
        (["predict", "a.wav", "b.wav", "--json"], "--jsonl"),
        (["predict", "-"], "standard input"),
        (["predict", "a.wav", "--model", "nothing"], "gtzan"),
        (["dance"], "No such command"),
    ],
)
def test_usage_errors_name_the_remedy(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2 and message in err and out == "" and "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="needs such file names")
def test_control_characters_in_names_are_escaped(run, wav, tmp_path):
    wav(make_music(2)).rename(tmp_path / "\x1b]0;mine\x07new\nline\x9b.wav")
    (tmp_path / "\x1b[31m.mp3").write_bytes(b"not music")
    status, out, err = run("predict", tmp_path, "--plot", tmp_path / "plots")
    assert status == 1 and r"\x1b]0;mine\x07new\nline\x9b.wav" in out and r"\x1b[31m.mp3" in err
    assert not set(out + err) & set("\x1b\x07\x9b")


def test_names_with_a_dash_and_empty_names_are_explained(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-song.wav").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["musicclass", "predict", "-song.wav"])
    status, _, err = run("predict", "-song.wav")
    assert status == 2 and "write ./ before it" in err
    status, _, err = run("predict", "")
    assert status == 1 and "an empty name" in err


@linux
def test_file_names_may_be_any_bytes(tmp_path):
    source = tmp_path / "x.wav"
    soundfile.write(source, make_noise(1.5), RATE)
    for name in (b"new\nline.wav", "🎵.wav".encode(), b"-dash.wav", b"latin\xe9.wav"):
        shutil.copy(os.fsencode(source), os.fsencode(tmp_path) + b"/" + name)
    source.unlink()
    result = musicclass("predict", tmp_path, "--jsonl")
    assert result.returncode == 0 and len([json.loads(line) for line in result.stdout.splitlines()]) == 4
    assert musicclass("predict", "--jsonl", "--", "-dash.wav", cwd=tmp_path).returncode == 0


@linux
def test_progress_goes_to_stderr_and_full_disks_are_reported(wav, tmp_path):
    import pty

    for name in "ab":
        wav(make_noise(2), name=f"{name}.wav")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "musicclass", "predict", str(tmp_path / "*.wav"), "--jsonl"]
    with (tmp_path / "out.jsonl").open("wb") as out:
        subprocess.run(command, stdout=out, stderr=slave, check=True, timeout=60)
    assert [json.loads(line)["genre"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    os.close(slave)
    shown = os.read(master, 100_000)
    os.close(master)
    assert b"probabilities" not in shown and shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1 and "No space left" in result.stderr and "Traceback" not in result.stderr


def test_help_and_imports_are_light():
    """Without NumPy for `--help`; without SciPy, rich and decoders to load a model."""
    code = "import sys, musicclass; sys.argv = ['musicclass', '--help']; from musicclass.cli.app import main; main(); "
    code += "print(sorted({'numpy', 'scipy', 'onnxruntime', 'soundfile', 'keras', 'rich'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(name in result.stdout for name in ("predict", "train", "evaluate", "extract-features"))
    code = "import sys, musicclass; musicclass.Classifier.load(); "
    code += "print(sorted({'scipy', 'rich', 'typer', 'soundfile', 'av', 'psutil'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_predict_writes_no_other_files(wav, tmp_path):
    """For example the device id that onnxruntime would store for its usage reports."""
    folders = {name: str(tmp_path / "home") for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_") and name != "CI"}
    assert musicclass("predict", wav(make_music(2)), env=environment | folders).returncode == 0
    assert not list((tmp_path / "home").iterdir())


def test_predict_needs_no_optional_dependency(wav):
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("keras", "tensorflow", "sklearn", "librosa", "matplotlib", "scipy", "pyarrow"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["musicclass", "predict", {str(wav(make_music(2)))!r}, '--jsonl']
from musicclass.cli.app import main
sys.exit(main())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "genre" in json.loads(result.stdout), result.stderr
    code = code.replace("'--jsonl'", "'--plot', 'x.png'")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2 and "pip install matplotlib, or" in result.stderr and '".[plot]"' in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and pipes")
def test_interrupts_and_closed_pipes_end_without_traceback(wav, tmp_path):
    clip = wav(make_music(20), name="clip.wav")
    for i in range(400):
        (tmp_path / f"{i:03}.wav").symlink_to(clip)
    # A parent that ignores SIGINT, such as a shell's background job, would pass that on to the child.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from musicclass.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "predict", str(tmp_path), "--jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert 0 < len([json.loads(line) for line in (first + out).splitlines()]) < 400
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())
    process.stdout.close()
    assert process.wait(timeout=60) == 1 and "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.slow
def test_commands_in_the_readme_exist():
    """Commands in code blocks of README.md use options that their `--help` shows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.S | re.M)
    lines = [line.split("#")[0].removeprefix("$ ") for block in blocks for line in block.splitlines()]
    commands = [line.split() for line in lines if re.match(r"musicclass [a-z]", line)]
    assert len(commands) >= 8
    names = {words[1] for words in commands}
    shown = {name: musicclass(name, "--help", env={**os.environ, "COLUMNS": "200"}).stdout for name in names}
    for words in commands:
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option in shown[words[1]], f"{' '.join(words)}: {option}"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_discard_what_is_written(wav, closed):
    command = f'"{sys.executable}" -m musicclass predict --model gtzan --csv "{wav(make_music(6))}" {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ("clip.wav" in done.stdout) == (closed == "2>&-")
