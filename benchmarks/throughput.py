"""How fast a library is heard: beside decoding alone, by number of workers, with --fast, and beside other ways.

python benchmarks/throughput.py [--files 24] [--repeat 3] [--songs FOLDER] [--bitrate 192]

The files are four minutes of made-up music, stereo, 44.1 kHz, mp3. Times are per file and core, from when all
workers are at work until the last file. With FOLDER, which has a sub-folder of clips for each genre, --fast is compared
on songs glued together of eight clips of a genre.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
import soundfile

import predict
from common import print_table, within, write_music
from musicclass.bundle import load_bundle
from musicclass.classifier import Classifier
from musicclass.library.journal import Journal
from musicclass.library.run import Options, hear, look_at, run, usable_cores
from musicclass.library.workers import Pool

SECONDS = 240
LIMIT, AIM, LINEAR = 1.5, 1.35, 0.85
GLUED, SONGS = 8, 5  # clips in a song, songs of a genre
ON_RAY = 160  # files


def make_decoder() -> Callable[[Any], float]:
    """A task that decodes and does nothing more."""
    return predict.decode


def make_librosa(rate: int = 22_050) -> Callable[[str], Any]:
    """The same network behind librosa's loading and features."""
    import librosa

    classifier = Classifier.load()
    config = classifier.bundle.features

    def tell(path: str) -> str:
        sound, _ = librosa.load(path, sr=rate)
        mel = librosa.feature.melspectrogram(
            y=sound, sr=rate, n_fft=config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels
        )
        frames = librosa.power_to_db(mel, top_db=None).T[:, : config.n_bands]
        return classifier.predict_log_mel(np.ascontiguousarray(frames), len(sound) / rate, path).genre

    return tell


def make_musicnn_front_end() -> Callable[[str], Any]:
    """The mel front end that musicnn has (16 kHz, 96 bands, hop of 256), by librosa, without any network."""
    import librosa

    def listen(path: str) -> int:
        sound, _ = librosa.load(path, sr=16_000)
        mel = librosa.feature.melspectrogram(y=sound, sr=16_000, n_fft=512, hop_length=256, n_mels=96)
        return int(np.log10(10_000 * mel + 1).shape[1])

    return listen


def seconds_per_file(results: Iterable[Any], workers: int) -> float:
    """For each file and worker, from when a quarter of the results are there: by then all are at work."""
    times = [time.perf_counter() for _ in results]
    first = max(workers, len(times) // 4) - 1
    return (times[-1] - times[first]) / (len(times) - 1 - first) * workers


def by_task(make_task: Any, files: list[str], workers: int) -> float:
    with Pool(make_task, workers, 600, 4e9) as pool:
        return seconds_per_file(pool.map(files), workers)


def by_library(folder: Path, workers: int, fast: bool = False, ray: str | None = None) -> float:
    """The library's own way: workers, journal and all, but for writing the table."""
    options, bundle = Options(workers=workers, fast=fast, ray=ray), load_bundle()
    with tempfile.TemporaryDirectory() as place, Journal(Path(place) / "journal", options.settings(bundle)) as journal:
        journal.see(look_at([str(folder)]))
        return seconds_per_file(hear(journal, options, bundle), workers)


def measure(folder: Path, repeat: int) -> None:
    files = sorted(str(path) for path in folder.iterdir())
    workers = [n for n in (1, 2, 4, 8) if n <= usable_cores()]
    ways: dict[str, Callable[[], float]] = {}
    for n in workers:
        ways[f"decoding alone, {n} workers"] = functools.partial(by_task, make_decoder, files, n)
        ways[f"library, {n} workers"] = functools.partial(by_library, folder, n)
    many = folder.with_name("many")  # Ray is slow to start, and works in blocks
    many.mkdir()
    for number in range(ON_RAY):
        (many / f"{number:03}.mp3").symlink_to(files[number % len(files)])
    ways[f"library on Ray, {workers[-1]} CPUs"] = functools.partial(by_library, many, workers[-1], ray="local")
    ways["library, 1 workers, --fast"] = functools.partial(by_library, folder, 1, True)
    some = files[: max(3, len(files) // 4)]
    ways["librosa and the same network"] = functools.partial(by_task, make_librosa, some, 1)
    ways["musicnn's mel front end, no network"] = functools.partial(by_task, make_musicnn_front_end, some, 1)
    taken = {name: float(np.median(times)) for name, times in in_turns(ways, repeat).items()}
    alone = taken["decoding alone, 1 workers"]
    rows = [(name, f"{t:.3f}", f"{SECONDS / t:,.0f}", f"{t / alone:.2f}") for name, t in taken.items()]
    rate = Path(files[0]).stat().st_size * 8 / SECONDS / 1000
    title = f"{len(files)} files of {SECONDS} s, {rate:.0f} kbit/s, median of {repeat}"
    print_table(title, ("way", "s per file and core", "times real time", "ratio"), rows)
    for n in workers:
        ratio = taken[f"library, {n} workers"] / taken[f"decoding alone, {n} workers"]
        print(f"{n} workers: {ratio:.2f} times decoding alone, {within(ratio <= LIMIT)} {LIMIT:g} (aim: {AIM:g})")
    for n in workers[1:]:
        share = taken["library, 1 workers"] / taken[f"library, {n} workers"]
        print(f"{n} workers: {share:.2f} of linear, {within(share >= LINEAR)} {LINEAR:g}")
    whole = taken["library, 1 workers"]
    print(f"--fast: {whole / taken['library, 1 workers, --fast']:.1f} times as fast")
    for name in list(ways)[-2:]:
        print(f"{taken[name] / whole:.1f} times as fast as {name}")
    print(f"10,000 songs of four minutes on 4 cores: {whole * 10_000 / 4 / 60:.0f} minutes")


def in_turns(ways: dict[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    """What each way returns, every repeat of all of them, so that a machine that slows down slows them all."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            found[name].append(way())
    return found


def songs(folder: Path) -> Iterator[np.ndarray]:
    """Songs of four minutes, glued of clips of a genre, drawn at random; at 22,050 Hz."""
    from musicclass.audio import load

    rng = np.random.default_rng(0)
    for genre in sorted(path for path in folder.iterdir() if path.is_dir()):
        clips = [load(path, 22_050) for path in sorted(genre.iterdir())]
        for _ in range(SONGS):
            yield np.concatenate([clips[i] for i in rng.integers(0, len(clips), GLUED)])


def compare_fast(folder: Path) -> None:
    classifier, guesses, told = Classifier.load(), [], []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "song.flac"
        for song in songs(folder):
            soundfile.write(path, song, 22_050)
            whole, fast = classifier.predict(path), classifier.predict(path, fast=True)
            guesses.append(whole.best_guess != fast.best_guess)
            told.append(whole.genre != fast.genre)
    print(
        f"--fast on {len(told)} songs glued of {GLUED} clips of a genre: another best guess in {np.mean(guesses):.0%}, "
        f"another answer (unknown counted) in {np.mean(told):.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bitrate", type=int, default=192, help="of the mp3s, in kbit/s")
    parser.add_argument("--songs", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "music"
        folder.mkdir()
        first = write_music(folder / "000.mp3", SECONDS, "MP3", options.bitrate)
        for number in range(1, options.files):
            shutil.copy(first, folder / f"{number:03}.mp3")
        predict.measure(first, "gtzan", options.repeat)
        measure(folder, options.repeat)
        begun = time.perf_counter()
        run([str(folder)], Path(place) / "genres.parquet", Options())
        print(f"the whole command, start and table included: {time.perf_counter() - begun:.1f} s")
    if options.songs:
        compare_fast(options.songs)


if __name__ == "__main__":
    main()
