"""A pool of worker processes survives what its tasks do."""

from __future__ import annotations

import functools
import os
import time

import pytest

from musicclass.errors import LibraryError
from musicclass.workers import TaskFailure, WorkerPool
from tests import faulty_tasks


@pytest.mark.slow
def test_failures_of_workers_affect_no_other_item():
    songs = [f"song {i}" for i in range(20)]
    start = time.monotonic()
    with WorkerPool(faulty_tasks.make_task, 2, timeout=5, max_memory=4e8) as pool:
        results = dict(pool.map([*songs[:10], "crash", "crash2", "exit", "hang", "raise", "swell", *songs[10:]]))
    assert time.monotonic() - start < 60
    failures = {name: results.pop(name) for name in list(results) if name not in songs}
    assert {name: failure.status for name, failure in failures.items()} == {
        "crash": "crashed", "crash2": "crashed", "exit": "crashed", "raise": "crashed",
        "hang": "timeout", "swell": "out_of_memory",
    }  # fmt: skip
    assert "Segmentation fault" in failures["crash"].error and "status 3" in failures["exit"].error
    assert "--timeout" in failures["hang"].error and "--worker-memory-gb" in failures["swell"].error
    assert list(results) and all(row["genre"] == "jazz" for row in results.values()) and len(results) == 20


def test_crash_and_timeout_get_a_new_worker():
    with WorkerPool(faulty_tasks.make_task, 1, timeout=1, max_memory=1e9) as pool:
        results = dict(pool.map(["crash", "hang", "song"]))
    assert results["crash"].status == "crashed" and results["hang"].status == "timeout"
    assert results["song"]["genre"] == "jazz"


@pytest.mark.slow
def test_idle_time_of_the_pool_does_not_extend_the_timeout():
    with WorkerPool(faulty_tasks.make_task, 1, timeout=1, max_memory=1e9) as pool:
        list(pool.map(["song"]))
        time.sleep(4)
        start = time.monotonic()
        [(_, failure)] = pool.map(["hang"])
        assert failure.status == "timeout" and time.monotonic() - start < 3


@pytest.mark.slow
def test_stalled_consumer_causes_no_timeout():
    with WorkerPool(functools.partial(faulty_tasks.make_task, "", 0.2), 3, timeout=1, max_memory=1e9) as pool:
        for _, value in pool.map([f"song {i}" for i in range(5)]):
            assert not isinstance(value, TaskFailure)
            time.sleep(1.2)


@pytest.mark.parametrize(
    ("make_task", "max_memory", "message"),
    [
        (faulty_tasks.fail_to_start, 1e9, "the model is missing"),
        (faulty_tasks.exit_at_start, 1e9, "exit status 7"),
        (faulty_tasks.make_task, 1e6, "--worker-memory-gb"),
    ],
)
def test_workers_that_cannot_start_are_an_error(make_task, max_memory, message):
    with WorkerPool(make_task, 2, 60, max_memory) as pool, pytest.raises(LibraryError, match=message):
        list(pool.map(["a"]))


def test_no_items_start_no_worker():
    with WorkerPool(faulty_tasks.exit_at_start, 2, 60, 1e9) as pool:
        assert list(pool.map([])) == []


def test_each_worker_uses_one_blas_thread_and_reports_progress(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    reports: list[str] = []
    task = "lambda report: lambda name: (report(name), __import__('os').environ[name])[1]"
    with WorkerPool(_Eval(task), 1, 60, 1e9, reports.append) as pool:
        names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
        assert dict(pool.map(names)) == dict.fromkeys(names, "1")
    assert reports == names and "OMP_NUM_THREADS" not in os.environ


class _Eval:
    """A picklable function from its source."""

    def __init__(self, source: str):
        self.source = source

    def __call__(self, *arguments):
        return eval(self.source)(*arguments)


def test_a_worker_killed_from_outside_is_retried_once():
    with WorkerPool(faulty_tasks.make_task, 2, 60, 1e9) as pool:
        results = dict(pool.map(["kill", "kill once", "song"]))
    assert not isinstance(results["kill once"], TaskFailure) and not isinstance(results["song"], TaskFailure)
    assert "killed twice" in results["kill"].error
