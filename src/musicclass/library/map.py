"""Songs in the plane, close together where they sound alike. Positions are kept; new songs come beside similar ones.

Songs are laid out by their embeddings or, where the model has none, by their probabilities: by UMAP (McInnes et al.
2018), or without umap-learn and for few songs by the first two principal components.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from musicclass.errors import MissingExtraError, import_optional
from musicclass.features import Array
from musicclass.library.results import ResultStore, Row
from musicclass.tagger import normalize

MAX_LAYOUT = 20_000  # songs that are laid out; further ones are placed among them
MIN_UMAP = 50  # songs; each needs 15 neighbours
UMAP_COMPONENTS = 50  # principal components that it gets: a third of the time of all
NEIGHBORS = 5  # of a new song
BATCH = 200  # new songs that are placed at once
PROB_FLOOR = 1e-4  # of probabilities, which are rounded
STEP = 0.004  # between songs at the same place; the plane is 2 wide
CELLS, TRIES = 2_000, 64  # of the plane, in each direction; cells that are tried for a song
DIGITS = 5


def update_map(store: ResultStore) -> None:
    """Give each song of the store's run a position; when more than half of them have none, all are laid out anew."""
    total, placed = store.count_placed()
    if placed < total / 2:
        store.clear_positions()
        songs = _at_most(MAX_LAYOUT, store.songs(placed=False), total)
        spread = Spread()
        points = lay_out(make_vectors([row for _, row in songs]))
        store.place((file, *spread.add(*point)) for (file, _), point in zip(songs, points.tolist(), strict=True))
        placed = len(songs)
    if placed < total:
        _place_new(store, placed)


def _place_new(store: ResultStore, placed: int) -> None:
    known = [row for _, row in _at_most(MAX_LAYOUT, store.songs(placed=True), placed)]
    vectors, points = make_vectors(known), np.array([(row["map_x"], row["map_y"]) for row in known], np.float32)
    spread = Spread(store.positions())
    songs = store.songs(placed=False)
    while batch := list(itertools.islice(songs, BATCH)):
        means = place(make_vectors([row for _, row in batch]), vectors, points).tolist()
        store.place((file, *spread.add(*point)) for (file, _), point in zip(batch, means, strict=True))


def _at_most(limit: int, songs: Iterator[Any], total: int) -> list[Any]:
    """Songs at equal distances in the order of their names."""
    return list(itertools.islice(songs, 0, None, max(1, math.ceil(total / limit))))


def make_vectors(rows: Sequence[Row]) -> Array:
    """The rows' embeddings, normalized, or the centred logarithms of their probabilities; (n, d)."""
    if all(row.get("embedding") for row in rows):
        return normalize(np.array([row["embedding"] for row in rows], np.float32))
    names = [name for name in rows[0] if name.startswith("prob_")]
    return log_ratios(np.array([[row.get(name) or 0 for name in names] for row in rows], np.float32))


def log_ratios(probabilities: Array) -> Array:
    """Centred log-ratios (Aitchison 1982) of probabilities (n, n_genres): the logits without their mean."""
    logs = np.log(np.maximum(probabilities, PROB_FLOOR))
    ratios: Array = logs - logs.mean(axis=1, keepdims=True) if logs.size else logs
    return ratios


def lay_out(vectors: Array) -> Array:
    """Vectors (n, d) -> points (n, 2) in -1..1; the same for the same vectors."""
    components = _components(vectors, UMAP_COMPONENTS)
    points = principal_components(vectors)
    if len(vectors) >= MIN_UMAP and np.ptp(points[:, 0]) > 0:
        try:
            points = _fit(np.nan_to_num(_umap(components, points)))
        except MissingExtraError:
            pass
        except Exception as error:  # numba without a folder for its cache, say; the table matters more
            warnings.warn(f"no UMAP, but principal components, for the map: {error}", stacklevel=2)
    return points


def _umap(vectors: Array, start: Array) -> Array:
    has_tensorflow = "tensorflow" in sys.modules
    if not has_tensorflow:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # umap would load it for a neural variant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TensorFlow is missing, and that a seed means one thread
            umap = import_optional("umap", "map")
            points: Array = umap.UMAP(init=start, random_state=0, n_jobs=1).fit_transform(vectors)
    finally:
        if not has_tensorflow:
            del sys.modules["tensorflow"]
    return points


def principal_components(vectors: Array) -> Array:
    """Vectors (n, d) -> the first two principal components (n, 2), in -1..1."""
    components = _components(vectors, 2)
    return _fit(np.pad(components, ((0, 0), (0, 2 - components.shape[1]))))


def _components(vectors: Array, count: int) -> Array:
    centred: Array = vectors - vectors.mean(axis=0)
    if not centred.size:
        return centred
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))  # else arbitrary
    components: Array = centred @ axes
    return components


def _fit(points: Array) -> Array:
    """Points (n, 2), centred and scaled alike in both directions, in -1..1."""
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    return (points / max(float(np.abs(points).max()), 1e-9)).astype(np.float32)


def place(vectors: Array, known: Array, points: Array) -> Array:
    """The positions (n, 2) of new songs' vectors (n, d): means of their nearest neighbours' among `known` (m, d).

    `points` (m, 2) are the positions of `known`. A neighbour counts by how much nearer it is than the first one that
    isn't among the NEIGHBORS, so that a copy comes to its original.
    """
    count = min(NEIGHBORS + 1, len(known))
    squares = (known**2).sum(axis=1) / 2
    similarity = vectors @ known.T - squares  # in the order of distances
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    similarity = np.take_along_axis(similarity, nearest, axis=1)
    weights = similarity - similarity.min(axis=1, keepdims=True) + 1e-6
    means: Array = (weights[..., None] * points[nearest]).sum(axis=1) / weights.sum(axis=1)[:, None]
    return means


class Spread:
    """Positions of which none is taken twice: further songs at the same place lie around it, in a spiral."""

    def __init__(self, taken: Iterable[tuple[float, float]] = ()):
        self._songs = np.zeros((CELLS, CELLS), np.uint32)  # of a fixed size, for any number of songs
        for position in taken:
            self._songs[_cell(position)] += 1

    def add(self, x: float, y: float) -> tuple[float, float]:
        """The position for a song whose place is (x, y)."""
        centre, position = _cell((x, y)), (x, y)
        first = int(self._songs[centre])
        self._songs[centre] += 1
        for number in range(first, first + TRIES if first else 1):
            radius, angle = STEP * math.sqrt(number), number * math.pi * (3 - math.sqrt(5))  # as a sunflower's seeds
            position = x + radius * math.cos(angle), y + radius * math.sin(angle)
            if not self._songs[_cell(position)]:
                break
        if _cell(position) != centre:
            self._songs[_cell(position)] += 1
        return round(position[0], DIGITS), round(position[1], DIGITS)


def _cell(position: tuple[float, float]) -> tuple[int, int]:
    row, column = (min(CELLS - 1, max(0, round((value + 1) / 2 * (CELLS - 1)))) for value in position)
    return row, column
