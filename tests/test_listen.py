"""`musicclass listen`, with a file as the microphone."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from rich.console import Console

from musicclass import Classifier
from musicclass.cli import listen
from musicclass.features import Array
from tests.conftest import make_music, make_noise

DEVICE_RATE = 44_100


def blocks_of(samples: Array, seconds: float = 0.25) -> Iterator[Array]:
    size = int(seconds * DEVICE_RATE)
    yield from (samples[start : start + size] for start in range(0, len(samples), size))


@pytest.fixture
def play(monkeypatch):
    """Play samples (n,) as the microphone of `musicclass listen`."""

    def play(samples: Array) -> None:
        microphone = contextlib.nullcontext((DEVICE_RATE, blocks_of(samples)))
        monkeypatch.setattr(listen, "open_microphone", lambda device: microphone)

    return play


@pytest.mark.parametrize("model", ["music", "gtzan"])
def test_the_whole_is_predicted_as_a_file_of_the_same_sound(model, wav):
    samples, moments = make_music(24, DEVICE_RATE), []
    samples[8 * DEVICE_RATE : 10 * DEVICE_RATE] *= 1e-4
    classifier = Classifier.load(model)
    prediction = listen.classify_blocks(blocks_of(samples), DEVICE_RATE, classifier, moments.append)
    expected = classifier.predict(wav(samples, DEVICE_RATE))
    assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert prediction.tags == pytest.approx(expected.tags) and prediction.duration == pytest.approx(24, abs=1e-3)
    assert [segment.genre for segment in prediction.segments] == [segment.genre for segment in expected.segments]
    assert 23 <= len(moments) <= 24 and moments[-1].seconds == pytest.approx(24, abs=0.3)
    silent = [round(moment.seconds) for moment in moments if moment.prediction is None]
    assert set(silent) <= {9, 10} and silent
    first = classifier.predict_waveform(samples[:DEVICE_RATE], DEVICE_RATE)
    assert moments[0].prediction.top_genre == first.top_genre and -40 < moments[0].level < 0


def test_command_prints_every_second_and_keeps_the_recording(run, play, tmp_path, classifier):
    play(make_music(6, DEVICE_RATE))
    saved = tmp_path / "kept.wav"
    status, out, err = run("listen", "--save", saved)
    assert status == 0 and "Ctrl-C" in err and f"{saved} written" in err
    assert len(re.findall(r"^0:0\d  -\d+ dB  \w+.*: confidence \d+%, familiarity", out, re.MULTILINE)) >= 5
    recorded, rate = soundfile.read(saved, dtype="float32")
    assert rate == DEVICE_RATE and len(recorded) == 6 * DEVICE_RATE
    assert f"{saved}  0:06  {classifier.predict(saved).summary()}" in out
    for name in (saved, tmp_path / "new.mp3"):
        status, _, err = run("listen", "--save", name)
        assert status == 2 and ".wav" in err
    status, _, err = run("listen", "--save", tmp_path / "missing" / "a.wav")
    assert status == 2 and "choose another --save" in err


def test_silence_and_unfamiliar_sounds_are_named(run, play):
    play(np.concatenate([np.zeros(2 * DEVICE_RATE, np.float32), make_noise(4, DEVICE_RATE)]))
    status, out, _ = run("listen")
    assert status == 0 and "silence" in out.splitlines()[0] and "unknown" in out.splitlines()[-1]
    play(np.zeros(3 * DEVICE_RATE, np.float32))
    status, _, err = run("listen")
    assert status == 2 and "microphone: silent throughout" in err
    assert 'speech is "unknown"' in " ".join(run("listen", "--help")[1].split())


def test_ribbon_has_a_letter_for_each_genre(classifier):
    names = listen.letters(classifier.genres)
    assert len(set(names.values())) == len(classifier.genres) and names["blues"] == "b"
    assert listen.letters(["a", "aa"]) == {"a": "a", "aa": "?"}
    ribbon = listen.Ribbon(classifier.genres)
    loud = listen.Moment(1, -20.0, classifier.predict_waveform(make_music(3), 22_050))
    for moment in (loud, listen.Moment(2, -90.0, None), loud._replace(seconds=3)):
        ribbon.add(moment)
    console = Console(width=60, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(ribbon.text(loud, 60))
    genre = loud.prediction.genre
    text = ribbon.text(loud, 60).plain
    letter = names.get(genre, "?")
    assert f"\n{letter}·{letter}\n" in text and f"{letter} {genre}" in text and "· silence" in text
    assert "\x1b[38;2;" in capture.get() and "-20 dB" in text
    assert f"\n{letter}\n" in ribbon.text(loud, 1).plain


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ImportError('no module')", "pip install sounddevice"),
        ("raise OSError('PortAudio library not found')", "apt install libportaudio2"),
    ],
)
def test_what_is_missing_is_named(run, tmp_path, monkeypatch, code, message):
    (tmp_path / "sounddevice.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    status, _, err = run("listen")
    assert status == 2 and message in err and "Traceback" not in err


def test_microphone_ends_at_the_first_interrupt_and_names_inputs(monkeypatch):
    class PortAudioError(Exception):
        pass

    class Stream(contextlib.nullcontext):
        def __init__(self, rate, device, channels, dtype, callback, finished_callback):
            super().__init__()
            callback(np.full((480, channels), 0.5, dtype), 480, None, None)

    devices = [{"name": "Mic", "max_input_channels": 1, "default_samplerate": 48_000.0}]

    def query_devices(device=None, kind=None):
        if device == "Other":
            raise ValueError("No input device matching 'Other'")
        return devices[0] if kind else devices

    fake = SimpleNamespace(query_devices=query_devices, InputStream=Stream, PortAudioError=PortAudioError)
    monkeypatch.setattr(listen, "import_sounddevice", lambda: fake)
    before = signal.getsignal(signal.SIGINT)
    with listen.open_microphone("0") as (rate, blocks):
        assert rate == 48_000 and next(blocks).tolist() == [0.5] * 480
        signal.raise_signal(signal.SIGINT)
        assert list(blocks) == []
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(listen.MusicClassError, match="choose --device from: 0 Mic"), listen.open_microphone("Other"):
        pass
    devices[0]["max_input_channels"] = 0
    with pytest.raises(listen.MusicClassError, match="connect a microphone"), listen.open_microphone("Other"):
        pass
