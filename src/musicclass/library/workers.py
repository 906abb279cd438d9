"""Processes that do one item at a time, and may crash, hang or swell without harm to the rest.

Decoders are written in C and meet any bytes. So each worker has a deadline and a bound on its memory, and
when it dies, by itself or for these, its item has failed and another worker takes its place. A pool of the standard
library would be broken by the first crash.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from musicclass.errors import LibraryError

AWAY_SECONDS = 1.0  # between two looks at workers, from which on they aren't blamed for it
TICK = 0.05  # seconds between two looks at the memory of workers
START_SECONDS = 120.0  # that a worker may take to begin
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Task = Callable[[Any], Any]
_spawn = multiprocessing.get_context("spawn")
_environment = threading.Lock()  # pools may be at work in several threads


@dataclass(frozen=True)
class Failure:
    """Why an item has no result."""

    status: str  # "crashed", "timed out", "out of memory"
    error: str


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    memory: psutil.Process
    ready: bool = False
    empty: int = 0  # bytes of memory that it takes before its first item
    item: Any = None
    since: float = field(default_factory=time.monotonic)


class Pool:
    """Worker processes, each with a task of its own, made there by `make_task` (which has to be picklable)."""

    def __init__(
        self,
        make_task: Callable[..., Task],
        workers: int,
        timeout: float,
        max_memory: float,
        told: Callable[[Any], None] | None = None,
    ):
        """`timeout` in seconds for each item, `max_memory` in bytes for each worker.

        With `told`, `make_task` gets a function: what a task gives to that, before its result, comes to `told`.
        """
        self.make_task, self.timeout, self.max_memory, self.told = make_task, timeout, max_memory, told
        self._workers: list[_Worker] = []
        self._size, self._heard = workers, time.monotonic()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End all workers; `map` starts new ones."""
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def map(self, items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Each item with its result, or a Failure, as they come; items are taken only as workers are free.

        Raises LibraryError when workers can't even start.
        """
        source = iter(items)
        waiting = next(source, None)
        self._heard = time.monotonic()  # time without items is no time away
        while waiting is not None or any(worker.item is not None for worker in self._workers):
            busy = sum(worker.item is not None or not worker.ready for worker in self._workers)
            if waiting is not None and busy == len(self._workers) < self._size:
                self._workers.append(self._start())
            for worker in self._workers:
                if waiting is not None and worker.ready and worker.item is None and self._give(worker, waiting):
                    waiting = next(source, None)
            yield from self._hear()

    def _start(self) -> _Worker:
        ours, theirs = _spawn.Pipe()
        with _one_thread(), _deaf_to_interrupts():
            process = _spawn.Process(target=_work, args=(theirs, self.make_task, self.told is not None), daemon=True)
            process.start()
        theirs.close()
        return _Worker(process, ours, psutil.Process(process.pid))

    def _give(self, worker: _Worker, item: Any) -> bool:
        try:
            worker.pipe.send(item)
        except OSError:  # it died between two items; `_hear` replaces it
            return False
        worker.item, worker.since = item, time.monotonic()
        return True

    def _hear(self) -> list[tuple[Any, Any]]:
        """What workers have to say within a moment, and the end of those that have gone wrong."""
        away = time.monotonic() - self._heard
        if away > AWAY_SECONDS:  # a slow consumer, or this process was stopped for a while: not the workers' fault
            for worker in self._workers:
                worker.since += away
        heard = wait([worker.pipe for worker in self._workers], TICK)
        found: list[tuple[Any, Any]] = []
        for worker in list(self._workers):
            found += self._listen(worker) if worker.pipe in heard else self._watch(worker)
        self._heard = time.monotonic()
        return found

    def _listen(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._lose(worker, Failure("crashed", f"its decoder crashed ({_death(worker)})"))
            return
        if kind == "broken":
            raise LibraryError(f"workers can't start: {value}")
        if kind == "ready":
            worker.ready, worker.empty = True, _memory(worker)
            if worker.empty >= self.max_memory:
                raise LibraryError(
                    f"a worker takes {worker.empty / 1e9:.1f} GB before its first file: raise --max-memory"
                )
        elif kind == "told" and self.told:
            self.told(value)
        elif worker.item is not None:
            item, worker.item = worker.item, None
            yield item, value

    def _watch(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        memory = _memory(worker)
        if worker.item is None:
            if not worker.ready and time.monotonic() - worker.since > START_SECONDS:
                raise LibraryError(f"workers can't start within {START_SECONDS:g} s; try fewer of them")
            if worker.ready and memory > (worker.empty + self.max_memory) / 2:
                self._drop(worker)  # what it has kept of items before must not be blamed on the next
        elif memory > self.max_memory:
            message = f"takes more than {self.max_memory / 1e9:g} GB of memory; if it is sound, raise --max-memory"
            yield from self._lose(worker, Failure("out of memory", message))
        elif time.monotonic() - worker.since > self.timeout:
            message = f"not done after {self.timeout:g} s; if it is sound, raise --timeout"
            yield from self._lose(worker, Failure("timed out", message))

    def _lose(self, worker: _Worker, failure: Failure) -> Iterator[tuple[Any, Failure]]:
        item = worker.item
        if not worker.ready:
            raise LibraryError(f"workers can't start: {_death(worker)}")
        self._drop(worker)
        if item is not None:
            yield item, failure

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _end(worker)


def _work(pipe: Connection, make_task: Callable[..., Task], tells: bool) -> None:
    """A worker's life: until its pipe ends, which it also does when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the parent could not ignore it
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # decoders chatter
    with contextlib.suppress(OSError, EOFError):
        try:
            task = make_task(lambda value: pipe.send(("told", value))) if tells else make_task()
        except Exception as error:
            pipe.send(("broken", str(error) or repr(error)))
            return
        pipe.send(("ready", None))
        while True:
            item = pipe.recv()
            try:
                value = task(item)
            except MemoryError:
                value = Failure("out of memory", "needs more memory than there is")
            except Exception as error:
                value = Failure("crashed", f"{type(error).__name__}: {error}")
            pipe.send(("done", value))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As many processes as cores leave no core for threads; libraries read this when they are loaded."""
    with _environment:
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C is the parent's affair: a process that is born while SIGINT is ignored goes on ignoring it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(5)  # not for ever: on a dying disk, even kill waits
    worker.pipe.close()


def _death(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


def _memory(worker: _Worker) -> int:
    try:
        return int(worker.memory.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0
