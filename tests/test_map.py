"""The map of a library: positions near similar songs, which stay where they are, none taken twice."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.decomposition import PCA

from musicclass.library import map as song_map
from musicclass.library.map import lay_out, log_ratios, principal_components
from musicclass.library.results import ResultStore

CENTRES = np.random.default_rng(0).normal(0, 1, (4, 200))


def store_of(path: Path, songs: dict[str, np.ndarray]) -> ResultStore:
    store = ResultStore(path, ("a", "b"))
    store.upsert_files((name, 1, 1) for name in songs)
    for name in list(store.pending()):
        store.record(name, {"status": "ok", "embedding": songs[name].tolist()}, False, name.encode())
    return store


def songs_of(names: range) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(names.start)
    return {f"/m/{i:04}.mp3": CENTRES[i % 4] + rng.normal(0, 0.2, 200) for i in names}


def positions(store: ResultStore) -> dict[str, tuple[float, float]]:
    return {row["file"]: (row["map_x"], row["map_y"]) for row in store.rows()}


@pytest.fixture
def without_umap(monkeypatch):
    monkeypatch.setattr(song_map, "MIN_UMAP", 10**9)


def test_new_songs_come_beside_similar_ones_and_old_ones_stay(tmp_path, without_umap):
    songs = songs_of(range(40))
    with store_of(tmp_path / "a.journal", songs) as store:
        song_map.update_map(store)
        first = positions(store)
        assert len(set(first.values())) == 40 and np.abs(list(first.values())).max() <= 1.1
    songs |= songs_of(range(40, 60)) | {f"/m/copy {i}.mp3": songs["/m/0000.mp3"] for i in range(15)}
    with store_of(tmp_path / "a.journal", songs) as store:
        song_map.update_map(store)
        second = positions(store)
        assert first.items() <= second.items() and len(set(second.values())) == 75
        points = {name: np.array(position) for name, position in second.items()}
        for name in (name for name in songs if "copy" in name):
            assert 0 < np.linalg.norm(points[name] - points["/m/0000.mp3"]) < 0.03
        for i in range(40, 60):
            nearest = min(range(40), key=lambda j: np.linalg.norm(points[f"/m/{i:04}.mp3"] - points[f"/m/{j:04}.mp3"]))
            assert nearest % 4 == i % 4
    songs |= songs_of(range(60, 160))
    with store_of(tmp_path / "a.journal", songs) as store:
        song_map.update_map(store)
        assert not first.items() <= positions(store).items(), "more than half are new"


def test_a_moved_file_keeps_its_position(tmp_path, without_umap):
    songs = songs_of(range(20))
    with store_of(tmp_path / "a.journal", songs) as store:
        song_map.update_map(store)
        first = positions(store)
    moved = {name.replace("/m/", "/n/"): vector for name, vector in songs.items()}
    with ResultStore(tmp_path / "a.journal", ("a", "b")) as store:
        store.upsert_files((name, 1, 1) for name in moved)
        for name in list(store.pending()):
            store.reuse(name, name.replace("/n/", "/m/").encode(), {})
        assert {name.replace("/n/", "/m/"): position for name, position in positions(store).items()} == first


def test_more_songs_than_are_laid_out_are_placed_among_them(tmp_path, without_umap, monkeypatch):
    monkeypatch.setattr(song_map, "MAX_LAYOUT", 50)
    with store_of(tmp_path / "a.journal", songs_of(range(240))) as store:
        song_map.update_map(store)
        assert len(set(positions(store).values())) == 240 and store.count_placed() == (240, 240)


@pytest.mark.slow  # numba compiles UMAP for half a minute
def test_umap_separates_what_differs():
    pytest.importorskip("umap")
    vectors = np.stack(list(songs_of(range(80)).values())).astype(np.float32)
    points = lay_out(vectors)
    centres = np.stack([points[i::4].mean(axis=0) for i in range(4)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.arange(80) % 4).all() and np.abs(points).max() == pytest.approx(1)


def test_principal_components_equal_those_of_scikit_learn():
    ratios = log_ratios(np.random.default_rng(0).dirichlet(np.full(10, 0.3), 500).astype(np.float32))
    points = principal_components(ratios)
    for axis, expected in enumerate(PCA(2, svd_solver="full").fit_transform(ratios).T):
        assert abs(np.corrcoef(points[:, axis], expected)[0, 1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_have_positions(suffix, wav, tmp_path, run):
    music = tmp_path / "music"
    music.mkdir()
    for i in range(3):
        wav(np.random.default_rng(i).normal(0, 0.1, 100_000), 22_050).rename(music / f"{i}.wav")
    (music / "broken.mp3").write_bytes(b"no audio")
    assert run("library", music, "--out", tmp_path / f"t.{suffix}", "--model", "gtzan", "--tolerate-failed")[0] == 0
    if suffix == "csv":
        rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    else:
        rows = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    places = {(row["map_x"], row["map_y"]) for row in rows}
    assert len(places) == 4 and places & {(None, None), ("", "")}
