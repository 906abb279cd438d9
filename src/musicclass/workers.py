"""A process pool that survives workers that crash, hang or exceed their memory limit.

Decoders are C libraries that read untrusted bytes. Each item therefore has a time limit and each worker a memory limit.
When a worker crashes or is killed at a limit, its item gets a TaskFailure and a new worker takes its place, where an
executor of the standard library would be broken.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from musicclass.errors import AudioError, DecodeError, InvalidSampleError, LibraryError, SilentError, TooShortError

OK = "ok"
STATUSES = {DecodeError: "unreadable", SilentError: "silent", InvalidSampleError: "invalid", TooShortError: "too_short"}
KILLED = (-getattr(signal, "SIGKILL", 9), -signal.SIGTERM)  # exit codes; crashes have others
POLL_SECONDS = 0.05  # between two checks of the limits
STALL_SECONDS = 1.0  # between two checks; longer pauses of the parent don't count against the time limit
START_SECONDS = 120.0  # for a worker to start
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

log = logging.getLogger(__name__)
TaskFn = Callable[[Any], Any]
_spawn = multiprocessing.get_context("spawn")
_start_lock = threading.Lock()  # starting a worker changes the environment, and threads may have a pool each


@dataclass(frozen=True)
class TaskFailure:
    """The reason why an item has no result."""

    status: str  # one of STATUSES, "crashed", "timeout", "out_of_memory", or the caller's own
    error: str


def task_failure(error: AudioError) -> TaskFailure:
    """The error as a result that can be sent between processes; its message becomes one line."""
    return TaskFailure(STATUSES[type(error)], " ".join(str(error).split()))


def usable_cores() -> int:
    """The number of cores this process may use; at most 60 on Windows, whose wait() takes 63 handles."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 60) if sys.platform == "win32" else cores


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ready: bool = False
    baseline: int = 0  # bytes of resident memory before the first item
    item: Any = None
    since: float = field(default_factory=time.monotonic)  # when it was started, or got its item

    def memory(self) -> int:
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0

    def stop(self) -> None:
        self.process.kill()
        self.process.join(5)  # a process that waits for a failing disk can't be killed
        self.pipe.close()


class WorkerPool:
    """Worker processes, started on demand; each calls `make_task`, which has to be picklable, for its own task."""

    def __init__(
        self,
        make_task: Callable[..., TaskFn],
        workers: int,
        timeout: float,
        max_memory: float,
        on_progress: Callable[[Any], None] | None = None,
    ):
        """`timeout` is in seconds for each item, `max_memory` in bytes for each worker.

        With `on_progress`, `make_task` gets a function; what a task passes to it is passed to `on_progress`.
        """
        self.make_task, self.timeout, self.max_memory, self.on_progress = make_task, timeout, max_memory, on_progress
        self._workers: list[_Worker] = []
        self._killed: list[Any] = []  # items whose worker was killed from outside
        self._retry: list[Any] = []
        self._size, self._last_poll, self._closing = workers, time.monotonic(), False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers; `map` starts new ones."""
        self._closing = True
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def map(self, items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Each item with its result or a TaskFailure, in order of completion; items are taken as workers are free.

        Raises LibraryError when workers can't start.
        """
        source = iter(items)
        upcoming = next(source, None)
        self._killed, self._retry, self._closing = [], [], False
        self._last_poll = time.monotonic()  # an idle pool isn't a stalled parent
        while upcoming is not None or any(worker.item is not None for worker in self._workers):
            busy = sum(worker.item is not None or not worker.ready for worker in self._workers)
            if upcoming is not None and busy == len(self._workers) < self._size:
                self._workers.append(self._start())
            for worker in self._workers:
                if upcoming is None or not worker.ready or worker.item is not None:
                    continue
                try:
                    worker.pipe.send(upcoming)
                except OSError:  # it died between two items; `_poll` replaces it
                    continue
                worker.item, worker.since = upcoming, time.monotonic()
                upcoming = next(source, None)
            yield from self._poll()
            if upcoming is None and self._retry:
                upcoming = self._retry.pop()

    def _start(self) -> _Worker:
        parent, child = _spawn.Pipe()
        with _inherited_settings():
            arguments = (child, self.make_task, self.on_progress is not None)
            process = _spawn.Process(target=_run_worker, args=arguments, daemon=True)
            process.start()
        child.close()
        return _Worker(process, parent)

    def _poll(self) -> list[tuple[Any, Any]]:
        """Receive what workers send within POLL_SECONDS, and stop those that exceed a limit."""
        pause = time.monotonic() - self._last_poll
        if pause > STALL_SECONDS:  # the consumer is slow, or this process was stopped: workers aren't to blame
            for worker in self._workers:
                worker.since += pause
        pipes = wait([worker.pipe for worker in self._workers], POLL_SECONDS)
        results: list[tuple[Any, Any]] = []
        for worker in list(self._workers):
            results += self._receive(worker) if worker.pipe in pipes else self._check_limits(worker)
        self._last_poll = time.monotonic()
        return results

    def _receive(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            reason = _exit_reason(worker.process)
            killed = worker.process.exitcode in KILLED  # from outside, such as by the kernel when memory is short
            if killed and worker.item not in self._killed:
                if worker.item is not None:
                    self._killed.append(worker.item)
                    self._retry.append(worker.item)
                    worker.item = None
                error = "killed from outside; its item, if any, is tried again"
            else:
                error = "its worker was killed twice" if killed else "its decoder crashed"
            yield from self._replace(worker, "crashed", f"{error} ({reason})")
            return
        if kind == "error":
            raise LibraryError(f"workers can't start: {value}")
        if kind == "ready":
            worker.ready, worker.baseline = True, worker.memory()
            if worker.baseline >= self.max_memory:
                size = f"{worker.baseline / 1e9:.1f} GB"
                raise LibraryError(f"a worker takes {size} before its first file: raise --worker-memory-gb")
        elif kind == "progress" and self.on_progress:
            self.on_progress(value)
        elif worker.item is not None:
            item, worker.item = worker.item, None
            yield item, value

    def _check_limits(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        memory, seconds = worker.memory(), time.monotonic() - worker.since
        if worker.item is not None and memory > self.max_memory:
            limit = f"{self.max_memory / 1e9:g} GB"
            error = f"needs more than {limit}; if the file plays, raise --worker-memory-gb"
            yield from self._replace(worker, "out_of_memory", error)
        elif worker.item is not None and seconds > self.timeout:
            error = f"not finished after {self.timeout:g} s; if the file plays, raise --timeout"
            yield from self._replace(worker, "timeout", error)
        elif not worker.ready and seconds > START_SECONDS:
            raise LibraryError(f"workers can't start within {START_SECONDS:g} s; try fewer of them")
        elif worker.ready and worker.item is None and memory > (worker.baseline + self.max_memory) / 2:
            yield from self._replace(worker)  # it leaks; the next item shouldn't fail for that

    def _replace(self, worker: _Worker, status: str = "", error: str = "") -> Iterator[tuple[Any, TaskFailure]]:
        """Stop a worker; `map` starts another when there are items."""
        if not self._closing:
            log.info("a worker was stopped: %s", error or "it held too much memory")
        self._workers.remove(worker)
        worker.stop()
        if not worker.ready:
            raise LibraryError(f"workers can't start: {error}")
        if worker.item is not None:
            yield worker.item, TaskFailure(status, error)


def _exit_reason(process: Any) -> str:
    process.join(5)
    code = process.exitcode or 0
    return f"exit status {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"


def _run_worker(pipe: Connection, make_task: Callable[..., TaskFn], with_progress: bool) -> None:
    """The main function of a worker; it ends with its pipe, so also when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it wasn't inherited
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print warnings
    with contextlib.suppress(OSError, EOFError):
        try:
            task = make_task(lambda value: pipe.send(("progress", value))) if with_progress else make_task()
        except Exception as error:
            pipe.send(("error", str(error) or repr(error)))
            return
        pipe.send(("ready", None))
        while True:
            item = pipe.recv()
            try:
                result = task(item)
            except MemoryError:
                result = TaskFailure("out_of_memory", "needs more memory than there is")
            except Exception as error:
                result = TaskFailure("crashed", f"{type(error).__name__}: {error}")
            pipe.send(("result", result))


@contextlib.contextmanager
def _inherited_settings() -> Iterator[None]:
    """Children inherit one BLAS thread each, as they share the cores, and ignore SIGINT: the parent handles Ctrl-C."""
    is_main = threading.current_thread() is threading.main_thread()  # others can't set signal handlers
    with _start_lock:
        saved = {name: os.environ[name] for name in BLAS_THREADS if name in os.environ}
        os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
        try:
            yield
        finally:
            if is_main:
                signal.signal(signal.SIGINT, handler)
            for name in BLAS_THREADS:
                del os.environ[name]
            os.environ.update(saved)
