"""Speed of predictions, of a library run, of start-up and of the server, each against its baseline.

python benchmarks/speed.py [predict] [library] [startup] [server] [--model MODEL] [--files 16] [--repeat 3]

predict  the stages of a prediction against decoding alone, in one thread
library  a run with one worker against decoding alone in one worker
startup  processes that load the model, predict, or print the help, against their imports
server   the server's throughput against the library's, with the same workers

Files are four minutes of synthetic music, stereo, 44.1 kHz, mp3 at 192 kbit/s; of one minute for the server.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import soundfile

from common import argument_parser, print_table, time_interleaved, write_music
from musicclass import audio, tagger
from musicclass.classifier import Classifier
from musicclass.features import log_mel
from musicclass.library.run import ScanOptions, predict_files
from musicclass.saved_model import load_model
from musicclass.windows import log_mel_windows
from musicclass.workers import WorkerPool, usable_cores

SECONDS, SERVER_SECONDS = 240, 60  # of a file
BLOCK_FRAMES = 65_536
SERVER_TIME = 20.0  # seconds of requests
IMPORTS = "import numpy, onnxruntime"
LOAD = "import sys; from musicclass import Classifier; Classifier.load(sys.argv[1])"
LIMITS = {"library": 1.55, "library with the tagger": 3.0, "load": 0.45, "server": 0.8}


def decode(path: str) -> None:
    """Decode a whole file in blocks."""
    for _ in soundfile.blocks(path, BLOCK_FRAMES, dtype="float32", always_2d=True):
        pass


def make_decoder() -> Callable[[str], None]:
    """A worker's task that only decodes."""
    return decode


def measure_predict(folder: Path, options: argparse.Namespace) -> None:
    path = write_music(folder / "music.mp3", SECONDS)
    classifier = Classifier.load(options.model)
    features = classifier.model.features
    waveform = audio.load(path, features.sample_rate)
    windows = log_mel_windows(log_mel(waveform, features), features)
    sampler = tagger.PatchSampler()
    sampler.add(waveform)
    patches, starts = sampler.patches()
    stages: dict[str, Callable[[], Any]] = {
        "decoding alone (soundfile)": lambda: decode(str(path)),
        "decoding, mono, resampling": lambda: audio.load(path, features.sample_rate),
        "log-mel windows": lambda: log_mel_windows(log_mel(waveform, features), features),
        f"model.onnx, {len(windows)} windows": lambda: classifier.score(windows),
        "whole prediction": lambda: classifier.predict(path),
    }
    if classifier.model.uses_tagger:
        stages[f"tagger.onnx, {len(patches)} patches"] = lambda: tagger.embed(patches, starts)
    times = {name: float(np.median(t)) for name, t in time_interleaved(stages, options.repeat).items()}
    print_times(f"one file of {SECONDS} s, one thread, median of {options.repeat}", times)


def print_times(title: str, times: dict[str, float]) -> None:
    """Seconds per file of SECONDS, and their ratio to the first."""
    baseline = next(iter(times.values()))
    rows = [(name, f"{t:.3f}", f"{SECONDS / t:,.0f}", f"{t / baseline:.2f}") for name, t in times.items()]
    print_table(title, ("", "seconds per file", "x real time", "ratio"), rows)


def seconds_per_file(results: Iterable[Any]) -> float:
    """Seconds per file of a pool, after the first quarter of the files: all workers are busy by then."""
    times = [time.perf_counter() for _ in results]
    first = max(1, len(times) // 4)
    return (times[-1] - times[first - 1]) / (len(times) - first)


def decoding_time(files: list[str]) -> float:
    with WorkerPool(make_decoder, 1, 600, 4e9) as pool:
        return seconds_per_file(pool.map(files))


def library_time(model: str, files: list[str], workers: int = 1, sampled: bool = False) -> float:
    options = ScanOptions(model, workers=workers, sampled=sampled)
    return seconds_per_file(predict_files(files, len(files), options, load_model(model)))


def copies(path: Path, count: int) -> list[str]:
    return [str(shutil.copy(path, path.with_stem(f"{path.stem} {number}"))) for number in range(count)]


def measure_library(folder: Path, options: argparse.Namespace) -> None:
    files = copies(write_music(folder / "song.mp3", SECONDS), options.files)
    library = functools.partial(library_time, options.model, files)
    ways = {
        "decoding alone, 1 worker": functools.partial(decoding_time, files),
        "library, 1 worker": library,
        "library, 1 worker, --fast": functools.partial(library, sampled=True),
        f"library, {options.workers} workers": functools.partial(library, options.workers),
    }
    times = {name: float(np.median([way() for _ in range(options.repeat)])) for name, way in ways.items()}
    print_times(f"{len(files)} files of {SECONDS} s, median of {options.repeat}", times)
    limit = "library with the tagger" if load_model(options.model).uses_tagger else "library"
    print_limit(limit, times["library, 1 worker"] / times["decoding alone, 1 worker"])


def measure_startup(folder: Path, options: argparse.Namespace) -> None:
    path = write_music(folder / "music.wav", 30)
    musicclass = ["-m", "musicclass"]
    commands = {
        IMPORTS: ["-c", IMPORTS],
        "Classifier.load()": ["-c", LOAD, options.model],
        "musicclass --help": [*musicclass, "--help"],
        "musicclass predict, 30 s of wav": [*musicclass, "predict", str(path), "--model", options.model],
    }
    stages = {
        name: functools.partial(subprocess.run, [sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        for name, command in commands.items()
    }
    times = time_interleaved(stages, max(7, options.repeat))
    rows = [(name, f"{np.median(t):.2f}", f"{t.min():.2f}") for name, t in times.items()]
    print_table("whole processes, interpreter included", ("process", "median seconds", "fastest"), rows)
    print_limit("load", float(np.median(times["Classifier.load()"])))


def measure_server(folder: Path, options: argparse.Namespace) -> None:
    song = write_music(folder / "short.mp3", SERVER_SECONDS)
    library = 1 / library_time(options.model, copies(song, 40 * options.workers), options.workers)
    command = [sys.executable, "-m", "musicclass", "serve", "--port", "0", "--no-open"]
    command += ["-j", str(options.workers), "--model", options.model]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        address = re.search(r"http://([^/]+)/", process.stderr.readline())
        assert address, "the server did not start"
        time.sleep(5)  # the address is printed before the server listens
        request_rate(address[1], song.read_bytes(), options.workers, 5.0)  # warm-up
        server = request_rate(address[1], song.read_bytes(), options.workers, SERVER_TIME)
        process.send_signal(signal.SIGINT)
    rows = [("library", f"{library:.1f}", ""), ("server", f"{server:.1f}", f"{server / library:.2f}")]
    print_table(f"{options.workers} workers, files of {SERVER_SECONDS} s", ("", "files per second", "ratio"), rows)
    print_limit("server", server / library)


def request_rate(address: str, data: bytes, workers: int, seconds: float) -> float:
    """Responses per second to clients that send one file after the other."""
    start = time.monotonic()

    def send(_: int) -> int:
        connection, count = http.client.HTTPConnection(address, timeout=60), 0
        while time.monotonic() < start + seconds:
            connection.request("POST", "/v1/predict", data, {"Content-Type": "audio/mpeg"})
            response = connection.getresponse()
            response.read()
            count += response.status == 200
        return count

    n_clients = 2 * workers + 2
    with ThreadPoolExecutor(n_clients) as pool:
        return sum(list(pool.map(send, range(n_clients)))) / (time.monotonic() - start)


def print_limit(name: str, value: float) -> None:
    limit = LIMITS[name]
    holds = value >= limit if name == "server" else value <= limit
    print(f"{name}: {value:.2f}, {'within' if holds else 'NOT within'} the limit of {limit:g}\n")


MEASUREMENTS = {
    "predict": measure_predict, "library": measure_library, "startup": measure_startup, "server": measure_server,
}  # fmt: skip


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("measurements", nargs="*", choices=[[], *MEASUREMENTS], metavar="|".join(MEASUREMENTS))
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usable_cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.measurements or MEASUREMENTS:
            MEASUREMENTS[name](Path(folder), options)


if __name__ == "__main__":
    main()
