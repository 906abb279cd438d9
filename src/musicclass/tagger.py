"""Samples at 22,050 Hz -> embeddings and tags of musicnn (Pons and Serra 2019), a CNN trained on 241,000 songs.

tagger.onnx is converted from the published weights when the package is built (hatch_build.py). Where that wasn't
possible, models use their first branch alone.
"""

from __future__ import annotations

import csv
import functools
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from musicclass.onnx_session import create_session

if TYPE_CHECKING:
    import onnxruntime

Array = npt.NDArray[np.float32]

TAGGER = Path(__file__).parent / "pretrained" / "musicnn" / "tagger.onnx"
STATISTICS = Path(__file__).parent / "tag_statistics.csv"  # columns tag, mean, std: logits over many songs
SAMPLE_RATE = 22_050  # Hz
PATCH_SAMPLES = 66_847  # 3.03 s, 187 frames of musicnn
EMBEDDING_SIZE = 200
SHORTEST = 1e-6  # length of a vector that is divided by it
MAX_PATCHES = 10  # per track; more change hardly any prediction
LOUDNESS = -16.0  # dBFS, the RMS level of the network's input
SILENT_RATIO = 1e-3  # patches 60 dB below the loudest one are dropped
MAX_TAGS = 5
MIN_Z_SCORE = 1.0  # of a tag that stands out against an average song
TAGS = (
    # musicnn's order and names, in lower case
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock", "jazz",
    "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "mellow", "electronica",
    "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic",
    "experimental", "female vocalist", "guitar", "hip-hop", "70s", "party", "country", "easy listening", "sexy",
    "catchy", "funk", "electro", "heavy metal", "progressive rock", "60s", "rnb", "indie pop", "sad", "house", "happy",
)  # fmt: skip


class TrackEmbeddings(NamedTuple):
    """The tagger's outputs for the patches of one track; at least one patch."""

    embeddings: Array  # (n_patches, EMBEDDING_SIZE)
    times: npt.NDArray[np.float64]  # (n_patches, 2), start and end in seconds
    tag_logits: Array | None = None  # (n_patches, len(TAGS)); None where only embeddings are stored


class PatchSampler:
    """Keeps evenly spread patches of a track that comes in blocks, whose sizes don't matter.

    Of the patches that follow each other without a gap, every `stride`-th is held; when twice `max_patches` are held,
    every second is dropped and the stride doubles. At the end, `max_patches` of them are chosen. So memory is bounded.
    """

    def __init__(self, max_patches: int = MAX_PATCHES):
        self._max_patches, self._stride, self._n_patches = max_patches, 1, 0
        self._held: list[tuple[int, Array]] = []  # indices and samples
        self._pending = np.zeros(0, np.float32)

    def observe(self, blocks: Iterable[Array]) -> Iterator[Array]:
        """Yield the blocks (n,) of a waveform at SAMPLE_RATE unchanged, after taking their patches."""
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block: Array) -> None:
        """Take the next samples (n,) of the waveform."""
        samples = np.concatenate([self._pending, block], dtype=np.float32)
        n_whole = len(samples) // PATCH_SAMPLES
        for patch in samples[: n_whole * PATCH_SAMPLES].reshape(n_whole, PATCH_SAMPLES):
            if self._n_patches % self._stride == 0:
                self._held.append((self._n_patches, patch.copy()))
            self._n_patches += 1
            if len(self._held) == 2 * self._max_patches:
                self._stride *= 2
                self._held = self._held[::2]
        self._pending = samples[n_whole * PATCH_SAMPLES :]

    def patches(self) -> tuple[Array, npt.NDArray[np.float64]]:
        """At most `max_patches` patches (n, PATCH_SAMPLES) and their starts (n,) in seconds.

        Audio shorter than a patch is repeated to fill one.
        """
        if self._held:
            chosen = np.linspace(0, len(self._held) - 1, min(len(self._held), self._max_patches)).round().astype(int)
            indices, patches = zip(*(self._held[i] for i in chosen), strict=True)
            return np.stack(patches), np.array(indices) * (PATCH_SAMPLES / SAMPLE_RATE)
        n_patches = min(1, len(self._pending))
        return np.resize(self._pending, (n_patches, PATCH_SAMPLES)), np.zeros(n_patches)


def embed(patches: Array, starts: npt.NDArray[np.float64]) -> TrackEmbeddings | None:
    """The tagger's outputs for the patches (n, PATCH_SAMPLES) of one track, which start at `starts` (n,) in seconds.

    Silent patches are dropped, the others scaled together to LOUDNESS, so that the track's gain doesn't matter. None
    where no patch is left, or without the tagger (see `available`).
    """
    rms = np.sqrt(np.mean(np.square(patches, dtype=np.float64), axis=1))
    sounds = rms > SILENT_RATIO * rms.max(initial=0)
    if not sounds.any() or not available():
        return None
    gain = 10 ** (LOUDNESS / 20) / math.sqrt(np.mean(rms[sounds] ** 2))
    samples, starts = patches[sounds] * np.float32(gain), starts[sounds]
    # One at a time stays in the processor's cache, which is a third faster than all at once.
    outputs = [_session().run(["embeddings", "tag_logits"], {"samples": patch[None]}) for patch in samples]
    embeddings, tag_logits = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    times = np.stack([starts, starts + PATCH_SAMPLES / SAMPLE_RATE], axis=1)
    return TrackEmbeddings(embeddings, times, tag_logits)


def normalize(embeddings: Array) -> Array:
    """Signed square roots of embeddings (n, EMBEDDING_SIZE), divided by their length; zeros stay zeros.

    A few large values count for less (power normalization, Perronnin et al. 2010).
    """
    return unit_length(np.sign(embeddings) * np.sqrt(np.abs(embeddings)))


def unit_length(vectors: npt.NDArray[np.floating]) -> Array:
    """Vectors (n, d), each divided by its Euclidean length; zeros stay zeros."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SHORTEST), np.float32)


def available() -> bool:
    """Whether the package was built with the tagger."""
    return TAGGER.exists()


@functools.cache
def warn_if_missing() -> None:
    """Warn, once in a process, where the tagger is missing."""
    if not available():
        warnings.warn(
            f"{TAGGER} is missing: predictions come from the first branch alone, without tags; "
            "to add it, run `python hatch_build.py` in a clone, or reinstall musicclass with a network connection",
            stacklevel=2,
        )


def characteristic_tags(patches: TrackEmbeddings | None) -> dict[str, float]:
    """Tag -> probability, the most characteristic first: at most MAX_TAGS that stand out against an average song.

    Probabilities are the network's for the mean logits of the patches, not calibrated. Empty without tag logits.
    """
    if patches is None or patches.tag_logits is None:
        return {}
    mean, std = tag_statistics()
    logits = patches.tag_logits.mean(axis=0, dtype=np.float64)
    z_scores = (logits - mean) / std
    order = [i for i in np.argsort(-z_scores, kind="stable")[:MAX_TAGS] if z_scores[i] > MIN_Z_SCORE]
    return {TAGS[i]: float(1 / (1 + np.exp(-logits[i]))) for i in order}


@functools.cache
def tag_statistics() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation (len(TAGS),) of each tag's logits."""
    with STATISTICS.open(encoding="utf-8", newline="") as file:
        rows = {row["tag"]: (float(row["mean"]), float(row["std"])) for row in csv.DictReader(file)}
    mean, std = np.array([rows[tag] for tag in TAGS]).T
    return mean, std


@functools.cache
def _session() -> onnxruntime.InferenceSession:
    return create_session(TAGGER.read_bytes())
