"""Files that wait to be heard, are heard, or have been: one queue, bounded in files and in bytes, and its workers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from musicclass.errors import LibraryError
from musicclass.library.workers import Failure, Pool
from musicclass.web.hearing import WARM_UP, Ask, make_hearer
from musicclass.web.problems import ProblemError, problem
from musicclass.web.settings import Settings

KEEP_SECONDS = 600.0  # that a finished job can be asked for
KEEP_JOBS = 1_000
AGAIN_SECONDS = 5.0  # between two tries to start a worker
GUESS_SECONDS = 1.0  # for one file, before any has been heard


class QueueFull(Exception):
    """No room for another file; try again after `seconds`."""

    def __init__(self, seconds: int):
        super().__init__(f"too many files are waiting; try again in {seconds} s")
        self.seconds = seconds


@dataclass
class Job:
    """One file. `value` is an answer or a Failure when `state` is "done"."""

    ask: Ask | None  # None once it has been heard
    name: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = "waiting"  # then "hearing", "done"
    share: float = 0.0  # of the file that has been read
    value: Any = None
    seconds: float = 0.0  # that hearing it took
    ended: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, **changes: Any) -> None:
        """Change it, and wake whoever follows it."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    async def follow(self, beat: float) -> AsyncIterator[Job]:
        """The job now, after every change and every `beat` seconds, until it is done."""
        while True:
            changed = self.changed
            yield self
            if self.state == "done":
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), beat)

    async def done(self) -> None:
        """Wait until it is."""
        while self.state != "done":
            await self.changed.wait()


class Jobs:
    """Runs jobs, in the order in which they came, in `settings.workers` processes."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.ready = 0  # workers that have loaded their model
        self._all: OrderedDict[str, Job] = OrderedDict()
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self.waiting = 0  # files that no worker has taken up yet
        self._bytes = 0  # of files that wait or are heard
        self._usual = GUESS_SECONDS  # seconds that a file takes, of late
        self._runners: list[asyncio.Task[None]] = []
        self.heard: Any = lambda job: None  # called with each finished job

    async def __aenter__(self) -> Jobs:
        self._threads = ThreadPoolExecutor(self.settings.workers, "hear")
        self._runners = [asyncio.create_task(self._run()) for _ in range(self.settings.workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def check_room(self, files: int = 1, size: int = 0) -> None:
        """Raises QueueFull, or ProblemError for more files than there will ever be room for."""
        if files > self.settings.queue:
            detail = f"{files} files at once; this server takes {self.settings.queue}: send less in one form"
            raise ProblemError(problem(413, "", detail))
        if self.waiting + files > self.settings.queue or self._bytes + size > self.settings.max_waiting_bytes:
            seconds = self._usual * max(1, self.waiting) / self.settings.workers
            raise QueueFull(max(1, round(seconds)))

    def put(self, asks: list[Ask]) -> list[Job]:
        """New jobs, for all of these files or, with QueueFull, for none."""
        self.check_room(len(asks), sum(len(ask.data) for ask in asks))
        jobs = [Job(ask, ask.name) for ask in asks]
        for job in jobs:
            self._bytes += len(job.ask.data) if job.ask else 0
            self._all[job.id] = job
            self._queue.put_nowait(job)
            self.waiting += 1
        self._forget_old()
        return jobs

    def get(self, id: str) -> Job | None:
        """A job by its id; None where there is none, or it was finished long ago."""
        self._forget_old()
        return self._all.get(id)

    def drop(self, job: Job) -> None:
        """Forget a job; one that waits will not be heard."""
        self._all.pop(job.id, None)
        if job.state == "waiting":
            self.waiting -= 1
            self._release(job)
            job.tell(state="done", value=Failure("cancelled", f"{job.name}: cancelled"))

    def _release(self, job: Job) -> None:
        if job.ask is not None:
            self._bytes -= len(job.ask.data)
            job.ask = None

    def _forget_old(self) -> None:
        now, done = time.monotonic(), [job for job in self._all.values() if job.state == "done"]
        for number, job in enumerate(done):
            if now - job.ended > KEEP_SECONDS or len(done) - number > KEEP_JOBS:
                del self._all[job.id]

    async def _run(self) -> None:
        """One worker's jobs. A pool of one, in a thread of its own, watches over its time and memory."""
        loop, current = asyncio.get_running_loop(), Job(None, "")
        settings = self.settings

        def told(share: float) -> None:
            loop.call_soon_threadsafe(lambda job: job.tell(share=share), current)

        make = functools.partial(make_hearer, settings.model, settings.min_confidence, settings.max_seconds)
        with Pool(make, 1, settings.timeout, settings.max_memory, told) as pool:
            while True:
                await self._begin(pool)
                value = None
                while not _is_lost(value):
                    current = await self._next()
                    begun = time.monotonic()
                    value = await self._hear(pool, current.ask)
                    self._finish(current, value, begun)
                self.ready -= 1

    async def _begin(self, pool: Pool) -> None:
        """Until the worker has loaded its model."""
        while _is_lost(value := await self._hear(pool, WARM_UP)):
            print(f"{value.error}; trying again", file=sys.stderr)
            await asyncio.sleep(AGAIN_SECONDS)
        self.ready += 1

    async def _hear(self, pool: Pool, ask: Ask | str | None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _hear, pool, ask)

    async def _next(self) -> Job:
        """The next job that nobody has dropped."""
        while (job := await self._queue.get()).ask is None:
            pass
        self.waiting -= 1
        job.tell(state="hearing")
        return job

    def _finish(self, job: Job, value: Any, begun: float) -> None:
        ended = time.monotonic()
        self._usual += 0.1 * (ended - begun - self._usual)
        self._release(job)
        job.tell(state="done", share=1.0, value=value, seconds=ended - begun, ended=ended)
        with contextlib.suppress(Exception):
            self.heard(job)


def _is_lost(value: Any) -> bool:
    return isinstance(value, Failure) and value.status == "no worker"


def _hear(pool: Pool, ask: Ask | str | None) -> Any:
    try:
        ((_, value),) = pool.map([ask])
    except (LibraryError, OSError) as error:  # workers that can't start, or were ended with the server
        pool.end()
        return Failure("no worker", str(error))
    if isinstance(value, Failure) and isinstance(ask, Ask) and not value.error.startswith(ask.name):
        return Failure(value.status, f"{ask.name}: {value.error}")
    return value
