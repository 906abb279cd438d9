"""`musicclass listen`: the genre of what a microphone records, as it plays."""

from __future__ import annotations

import contextlib
import math
import queue
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from musicclass.cli.options import MinimumOption, ModelOption
from musicclass.errors import AudioError, MissingExtraError, MusicClassError, escape_control_chars
from musicclass.saved_model import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.text import Text

    from musicclass.classifier import Classifier
    from musicclass.features import Array
    from musicclass.prediction import Prediction

MICROPHONE = "microphone"
RECENT_SECONDS, STEP_SECONDS = 10, 1  # what is classified, and how often
SILENCE_DB = -55.0  # dBFS of the last second; rooms are about -60, quiet music about -45
METER, METER_DB = 24, 60  # characters, and the range in dB
SUFFIXES = (".wav", ".flac")
PORTAUDIO = (
    "PortAudio, which reads the microphone, is missing; install it: apt install libportaudio2 (Debian, Ubuntu), "
    "dnf install portaudio (Fedora), brew install portaudio (macOS)"
)
SILENT, UNKNOWN_LETTER = "·", "?"  # in the ribbon


class Moment(NamedTuple):
    """The state of the last second."""

    seconds: float  # since the start
    level: float  # dBFS, RMS of the last second
    prediction: Prediction | None  # of the last RECENT_SECONDS; None: silence


def listen(
    model: ModelOption = DEFAULT_MODEL,
    save: Annotated[Path | None, typer.Option(help="Keep the recording in a new .wav or .flac file.")] = None,
    device: Annotated[str | None, typer.Option(help="Number, or part of the name, of the input.")] = None,
    silence: Annotated[float, typer.Option(max=0, help="Silence is below this level, in dBFS.")] = SILENCE_DB,
    min_confidence: MinimumOption = None,
) -> None:
    """Predict the genre of what the microphone records, every second; Ctrl-C ends with that of the whole.

    Models have no detector of speech: speech is "unknown", as is all that is unlike the training data.
    """
    from rich.console import Console
    from rich.live import Live

    from musicclass.classifier import Classifier
    from musicclass.cli.predict import PredictionWriter

    if save and (save.suffix.lower() not in SUFFIXES or save.exists()):
        raise typer.BadParameter(f"--save needs a new file whose name ends with {' or '.join(SUFFIXES)}")
    classifier = Classifier.load(model, min_confidence=min_confidence)
    console, ribbon = Console(highlight=False, emoji=False), Ribbon(classifier.genres)
    with contextlib.ExitStack() as stack:
        rate, blocks = stack.enter_context(open_microphone(device))
        if save:
            blocks = stack.enter_context(recording(blocks, rate, save))
        print("Listening; Ctrl-C ends.", file=sys.stderr)
        live = stack.enter_context(Live(console=console, auto_refresh=False)) if console.is_terminal else None

        def show(moment: Moment) -> None:
            ribbon.add(moment)
            if live:
                live.update(ribbon.text(moment, console.width), refresh=True)
            else:
                print(status(moment), flush=True)

        prediction = classify_blocks(blocks, rate, classifier, show, silence)
    writer = PredictionWriter("table", classifier, top=3)
    writer.result(replace(prediction, file=str(save or MICROPHONE)), None)
    if save:
        print(f"{escape_control_chars(str(save))} written", file=sys.stderr)


def classify_blocks(
    blocks: Iterator[Array],
    rate: float,
    classifier: Classifier,
    show: Callable[[Moment], None],
    silence: float = SILENCE_DB,
) -> Prediction:
    """The prediction for blocks (n,) or (n, channels) at `rate` (Hz), as that for a file of them.

    After every second, `show` is called. Memory is bounded, as samples are dropped after RECENT_SECONDS; the features
    of the whole are computed meanwhile. Raises AudioError.
    """
    import numpy as np

    from musicclass import audio

    model_rate = classifier.model.features.sample_rate
    step, n_samples, n_steps = STEP_SECONDS * model_rate, 0, 0
    recent = np.zeros(0, np.float32)
    samples: queue.SimpleQueue[Array | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        features = pool.submit(classifier.track_features, blocks_of(samples))
        try:
            for block in audio.stream_blocks(blocks, rate, model_rate, classifier.limits, MICROPHONE):
                samples.put(block)
                n_samples += len(block)
                recent = np.concatenate([recent, block])[-RECENT_SECONDS * model_rate :]
                if n_samples // step > n_steps:
                    n_steps = n_samples // step
                    show(moment_of(recent, n_samples / model_rate, classifier, silence))
        finally:
            samples.put(None)
    return classifier.predict_features(features.result(), MICROPHONE)


def moment_of(recent: Array, seconds: float, classifier: Classifier, silence: float) -> Moment:
    """The state of the last second by the `recent` samples (n,) at the model's rate."""
    import numpy as np

    last = recent[-STEP_SECONDS * classifier.model.features.sample_rate :]
    level = 20 * math.log10(max(1e-6, float(np.sqrt(np.mean(np.square(last, dtype=np.float64))))))
    prediction = None
    if level >= silence:
        with contextlib.suppress(AudioError):  # nothing but a constant
            prediction = classifier.predict_features(classifier.track_features([recent]))
    return Moment(seconds, level, prediction)


def status(moment: Moment) -> str:
    """Such as "0:12  -23 dB  jazz: confidence 71%, familiarity 0.93  (piano, slow)"."""
    from musicclass.explain import clock

    words = moment.prediction.summary() if moment.prediction else "silence"
    tags = ", ".join(moment.prediction.tags) if moment.prediction else ""
    return f"{clock(moment.seconds)}  {moment.level:.0f} dB  {words}{f'  ({tags})' if tags else ''}"


class Ribbon:
    """The genre of each second, as a colored letter."""

    def __init__(self, genres: Sequence[str]):
        self.genres = genres
        self._letters = letters(genres)
        self._genres: list[str | None] = []  # None: silence

    def add(self, moment: Moment) -> None:
        """Append the genre of a moment."""
        self._genres.append(moment.prediction.genre if moment.prediction else None)

    def text(self, moment: Moment, width: int) -> Text:
        """Level, genre and tags, the ribbon of the last `width` seconds, and what its letters mean."""
        from rich.text import Text

        from musicclass.explain import clock
        from musicclass.palette import genre_color

        bar = "█" * round(METER * min(1.0, max(0.0, 1 + moment.level / METER_DB)))
        prediction = moment.prediction
        shown = self._genres[-width:]
        text = Text(
            f"{clock(moment.seconds)}  {bar:<{METER}} {moment.level:.0f} dB\n", no_wrap=True, overflow="ellipsis"
        )
        text.append(prediction.summary() if prediction else "silence", "bold")
        text.append("\n" + ", ".join(prediction.tags if prediction else ()) + "\n")
        for genre in shown:
            text.append(self._letter(genre), genre_color(genre, self.genres))
        text.append("\n")
        for genre in dict.fromkeys(shown):
            text.append(f"{self._letter(genre)} {genre or 'silence'}  ", genre_color(genre, self.genres))
        return text

    def _letter(self, genre: str | None) -> str:
        return SILENT if genre is None else self._letters.get(genre, UNKNOWN_LETTER)


def letters(genres: Sequence[str]) -> dict[str, str]:
    """A letter of its own for each genre: the first one of its name that no other has, as far as there is one."""
    chosen: dict[str, str] = {}
    for genre in genres:
        free = [letter for letter in genre if letter.isalnum() and letter not in chosen.values()]
        chosen[genre] = free[0] if free else UNKNOWN_LETTER
    return chosen


@contextlib.contextmanager
def recording(blocks: Iterable[Array], rate: float, path: Path) -> Iterator[Iterator[Array]]:
    """The blocks (n,), which are written to `path` (16 bit) as they arrive."""
    import soundfile

    def write() -> Iterator[Array]:
        for block in blocks:
            file.write(block)
            yield block

    try:
        with soundfile.SoundFile(path, "x", round(rate), 1, "PCM_16") as file:
            yield write()
    except soundfile.LibsndfileError as error:
        raise MusicClassError(f"{path}: can't be written ({error.error_string}); choose another --save") from error


@contextlib.contextmanager
def open_microphone(device: str | None) -> Iterator[tuple[float, Iterator[Array]]]:
    """The rate (Hz) and mono blocks (n,) of an input, until Ctrl-C. Raises MusicClassError with the remedy."""
    sounddevice = import_sounddevice()
    chosen = int(device) if device and device.isdigit() else device
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    try:
        rate = float(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            rate, device=chosen, channels=1, dtype="float32", callback=lambda data, *_: arrived.put(data[:, 0].copy()),
            finished_callback=lambda: arrived.put(None),
        )  # fmt: skip
    except (sounddevice.PortAudioError, ValueError) as error:
        inputs = [f"{i} {d['name']}" for i, d in enumerate(sounddevice.query_devices()) if d["max_input_channels"]]
        remedy = f"choose --device from: {', '.join(inputs)}" if inputs else "connect a microphone"
        raise MusicClassError(f"no such input, or it can't be read ({error}); {remedy}") from error

    def stop(*_: object) -> None:
        arrived.put(None)
        signal.signal(signal.SIGINT, previous)  # a second Ctrl-C ends at once

    previous = signal.signal(signal.SIGINT, stop)
    try:
        with stream:
            yield rate, blocks_of(arrived)
    finally:
        signal.signal(signal.SIGINT, previous)


def blocks_of(arrived: queue.SimpleQueue[Any]) -> Iterator[Array]:
    """What has arrived, as one block (n,) so that a slow computer keeps up; ends with None."""
    import numpy as np

    while (block := arrived.get()) is not None:
        waiting = [block]
        while not arrived.empty():
            if (block := arrived.get()) is None:
                arrived.put(None)
                break
            waiting.append(block)
        yield np.concatenate(waiting)


def import_sounddevice() -> Any:
    """The package that reads microphones. Raises MissingExtraError."""
    from musicclass.errors import import_optional

    try:
        return import_optional("sounddevice", "listen")
    except OSError as error:
        raise MissingExtraError(PORTAUDIO) from error
