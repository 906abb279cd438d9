"""The same as workers.Pool, on Ray: paths -> windows in CPU tasks -> rows by actors that keep the model.

A file that crashes its decoder, hangs or swells is a row here, too: each Ray worker decodes in a worker process of
its own (workers.py). A Ray worker or machine that dies is Ray's affair: it does the lost blocks again.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.audio import source_name
from musicclass.bundle import CARD, MODEL, Bundle, pretrained_names
from musicclass.classifier import Classifier, Heard, hear
from musicclass.config import FeatureConfig
from musicclass.errors import AudioError, require
from musicclass.library import run
from musicclass.library.workers import Failure, Pool, Task

FILES_IN_BLOCK = 8  # that are lost, and done again, when a worker dies
FILES_AT_ONCE = 100_000  # given to Ray in one go; their paths are in memory


class RayPool:
    """Ray, used as workers.Pool is: a context with `map`."""

    def __init__(self, bundle: Bundle, options: run.Options):
        self.bundle, self.options = bundle, options

    def __enter__(self) -> RayPool:
        ray = require("ray", "ray")
        require("ray.data", "ray")
        self._ours = not ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data itself does
            here = {"num_cpus": self.options.workers} if self.options.ray == "local" else {}
            ray.init(self.options.ray, **here, log_to_driver=False, logging_level="error")
        logging.getLogger("ray.data").setLevel("ERROR")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            require("ray", "ray").shutdown()

    def map(self, items: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Each item with its row's part, or a Failure, as they come."""
        ray = require("ray", "ray")
        source, limits = iter(items), (self.options.timeout, self.options.max_memory)
        model: Any = self.options.model
        if model not in pretrained_names():  # there may be no such folder where an actor runs
            model = [ray.put([(self.bundle.path / name).read_bytes() for name in (CARD, MODEL)])]
        decode = functools.partial(_decode, self.bundle.features, self.options.fast, *limits)
        tell_with = (model, self.options.min_confidence, self.options.timeline)
        actors = max(1, int(ray.cluster_resources().get("CPU", 1)) // 4)
        while some := list(itertools.islice(source, FILES_AT_ONCE)):
            blocks = -(-len(some) // FILES_IN_BLOCK)
            paths = ray.data.from_items([{"path": os.fsencode(path)} for path in some], override_num_blocks=blocks)
            # Together a CPU. Were they the same, Ray would do both in the few actors; decoding takes most of the time.
            rows = paths.map(decode, num_cpus=0.9).map(
                _Teller, fn_constructor_args=tell_with, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
                num_cpus=0.1,
            )  # fmt: skip
            for row in rows.iter_rows():
                yield os.fsdecode(row["path"]), _read(row)


def _decode(
    features: FeatureConfig, fast: bool, timeout: float, max_memory: float, row: dict[str, Any]
) -> dict[str, Any]:
    """In a Ray task: what is heard of a file, or why there is nothing."""
    ((_, value),) = _decoder(features, fast, timeout, max_memory).map([os.fsdecode(row["path"])])
    path = row["path"]
    if isinstance(value, Failure):
        empty = {"windows": b"", "times": b"", "duration": 0.0}
        return {"path": path, **empty, "status": value.status, "error": value.error}
    heard = {"windows": value.windows.tobytes(), "times": value.times.tobytes(), "duration": value.duration}
    return {"path": path, **heard, "status": run.OK, "error": ""}


@functools.cache  # a Ray worker may serve several runs
def _decoder(features: FeatureConfig, fast: bool, timeout: float, max_memory: float) -> Pool:
    pool = Pool(functools.partial(_make_decoder, features, fast), 1, timeout, max_memory)
    atexit.register(pool.__exit__)
    return pool


def _make_decoder(features: FeatureConfig, fast: bool) -> Task:
    def decode(path: str) -> Any:
        try:
            with run.opened(path) as source:
                return hear(source, features, fast=fast)
        except AudioError as error:
            return run.failure(error)

    return decode


class _Teller:
    """In a Ray actor: what was heard -> the row, as JSON."""

    def __init__(self, model: str | list[Any], min_confidence: float | None, timeline: bool):
        with tempfile.TemporaryDirectory() as folder:
            if not isinstance(model, str):
                for name, content in zip((CARD, MODEL), require("ray", "ray").get(model[0]), strict=True):
                    (Path(folder) / name).write_bytes(content)
            self.classifier = Classifier.load(
                model if isinstance(model, str) else folder, min_confidence=min_confidence
            )
        self.timeline = timeline

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        value: Any = Failure(row["status"], row["error"])
        if row["status"] == run.OK:
            times = np.frombuffer(row["times"], np.float64).reshape(-1, 2)
            shape = len(times), -1, self.classifier.bundle.features.n_mfcc
            windows = np.frombuffer(row["windows"], np.float32).reshape(shape)
            name = source_name(os.fsdecode(row["path"]))
            try:
                told = self.classifier.tell(Heard(windows, times, row["duration"]), name)
                value = run.as_told(told, self.timeline)
            except AudioError as error:
                value = run.failure(error)
        failed = isinstance(value, Failure)
        return {
            "path": row["path"],
            "status": value.status if failed else run.OK,
            "error": value.error if failed else "",
            "told": "" if failed else json.dumps(value),
        }


def _read(row: dict[str, Any]) -> Any:
    return json.loads(row["told"]) if row["status"] == run.OK else Failure(row["status"], row["error"])
