"""A WorkerPool's map on a Ray cluster: CPU tasks turn files into windows, actors with the model predict.

Each Ray worker decodes in a process of its own (workers.py), so a file that crashes its decoder, hangs or exceeds the
memory limit is a row with an error here, too. When a Ray worker or a machine is lost, Ray processes its files again.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from musicclass.audio import source_name
from musicclass.classifier import Classifier
from musicclass.config import FeatureConfig
from musicclass.errors import import_optional
from musicclass.library import run, table
from musicclass.saved_model import CARD, MODEL, SavedModel
from musicclass.windows import extract_windows
from musicclass.workers import TaskFailure, TaskFn, WorkerPool

BLOCK_FILES = 8  # processed again when a Ray worker is lost
BATCH_FILES = 100_000  # passed to Ray at once; their names are in memory
RayRow = dict[str, bytes]  # "file", and "value", a pickle


def map_files(files: Iterable[str], model: SavedModel, options: run.ScanOptions) -> Iterator[tuple[str, Any]]:
    """Each file with its result or a TaskFailure, in order of completion."""
    ray = import_optional("ray", "ray")
    import_optional("ray.data", "ray")
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data itself does
        resources = {"num_cpus": options.workers} if options.ray == "local" else {}
        ray.init(options.ray, **resources, log_to_driver=False, logging_level="error")
    logging.getLogger("ray.data").setLevel("ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    graph = [ray.put((model.path / name).read_bytes()) for name in (CARD, MODEL)]
    try:
        source = iter(files)
        while batch := list(itertools.islice(source, BATCH_FILES)):
            yield from _map_batch(batch, graph, model, options)
    finally:
        if started_here:
            ray.shutdown()


def _map_batch(
    batch: Sequence[str], graph: list[Any], model: SavedModel, options: run.ScanOptions
) -> Iterator[tuple[str, Any]]:
    ray = import_optional("ray", "ray")
    features, with_tagger = model.features, model.uses_tagger

    def extract_row(row: RayRow) -> RayRow:
        return {"file": row["file"], "value": pickle.dumps(extract(row, features, with_tagger, options))}

    items = [{"file": os.fsencode(file)} for file in batch]
    actors = max(1, int(ray.cluster_resources().get("CPU", 1)) // 4)
    # Most of the time is decoding. With different shares of a CPU, Ray doesn't move it into the actors.
    blocks = ray.data.from_items(items, override_num_blocks=-(-len(items) // BLOCK_FILES))
    rows = blocks.map(extract_row, num_cpus=0.9).map(
        _PredictActor,
        fn_constructor_args=(graph, options),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=0.1,
    )
    for row in rows.iter_rows():
        yield os.fsdecode(row["file"]), pickle.loads(row["value"])


def extract(row: RayRow, features: FeatureConfig, with_tagger: bool, options: run.ScanOptions) -> Any:
    """The TrackWindows of a file, or a TaskFailure; runs in a Ray task."""
    ((_, value),) = _extraction_pool(features, with_tagger, options).map([os.fsdecode(row["file"])])
    return value


@functools.cache  # a Ray worker may serve several runs
def _extraction_pool(features: FeatureConfig, with_tagger: bool, options: run.ScanOptions) -> WorkerPool:
    make_task = functools.partial(_make_extract_task, features, with_tagger, options.sampled)
    pool = WorkerPool(make_task, 1, options.timeout, options.max_memory)
    atexit.register(pool.close)
    return pool


def _make_extract_task(features: FeatureConfig, with_tagger: bool, sampled: bool) -> TaskFn:
    return run.file_task(
        functools.partial(extract_windows, features=features, sampled=sampled, with_tagger=with_tagger)
    )


class _PredictActor:
    """Windows -> the row of a file."""

    def __init__(self, model: list[Any], options: run.ScanOptions):
        ray = import_optional("ray", "ray")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in zip((CARD, MODEL), ray.get(model), strict=True):
                (Path(folder) / name).write_bytes(content)
            self.classifier = Classifier.load(folder, min_confidence=options.min_confidence)
        self.options = options

    def __call__(self, row: RayRow) -> RayRow:
        value = pickle.loads(row["value"])
        if not isinstance(value, TaskFailure):
            prediction = self.classifier.predict_windows(value, source_name(os.fsdecode(row["file"])))
            value = table.prediction_row(prediction, self.options.segments)
        return {"file": row["file"], "value": pickle.dumps(value)}
