"""Prediction jobs: a queue that is bounded in files and in bytes, and its workers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from musicclass.errors import LibraryError
from musicclass.features import TrackFeatures
from musicclass.server.inference import WARM_UP, PredictRequest, PredictResponse, make_request_task
from musicclass.server.problem_details import Problem, ProblemError, make_problem
from musicclass.server.settings import ServerSettings
from musicclass.workers import OK, TaskFailure, WorkerPool

KEEP_SECONDS = 600.0  # after which a finished job is forgotten
KEEP_JOBS = 1_000
KEEP_FEATURES = 100_000_000  # bytes of songs' features, so that explanations need no second decoding: 2.5 hours
RESTART_DELAY = 5.0  # seconds between two attempts to start a worker
HISTOGRAM_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
NO_WORKER, CANCELLED = "no_worker", "cancelled"
HTTP_STATUS = {NO_WORKER: 503, CANCELLED: 410}  # of failures; of all others, which are the file's fault, 422


@dataclass
class JobStatus:
    """A job as the API shows it; it has a `prediction` or a `problem` when it is done."""

    id: str
    href: str
    file: str
    state: Literal["queued", "running", "done"]
    progress: float  # share of the file that has been read
    prediction: PredictResponse | None = None
    problem: Problem | None = None


class Job:
    """The prediction of one file."""

    def __init__(self, request: PredictRequest, root_path: str):
        id = uuid.uuid4().hex
        self.status = JobStatus(id, f"{root_path}/v1/jobs/{id}", request.name, "queued", 0.0)
        self.request: PredictRequest | None = request
        self.done: asyncio.Future[PredictResponse | Problem] = asyncio.Future()

    def finish(self, result: PredictResponse | TaskFailure) -> None:
        """Set the result, and free the file's bytes."""
        status, self.request = self.status, None
        status.state, status.progress = "done", 1.0
        if isinstance(result, PredictResponse):
            status.prediction = result
            self.done.set_result(result)
        else:
            detail = result.error if result.error.startswith(status.file) else f"{status.file}: {result.error}"
            http_status = HTTP_STATUS.get(result.status, 422)
            status.problem = make_problem(http_status, result.status, detail, file=status.file)
            self.done.set_result(status.problem)


class Metrics:
    """The counters of one server, for Prometheus."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.queued = Gauge("musicclass_queued_files", "Files that wait for a worker", registry=registry)
        self.workers = Gauge("musicclass_workers", "Workers that have loaded the model", registry=registry)
        self._files = Counter("musicclass_files", "Files by status", ["status"], registry=registry)
        self._genres = Counter("musicclass_genres", "Files by predicted genre", ["genre"], registry=registry)
        self._audio = Counter("musicclass_audio_seconds", "Seconds of audio decoded", registry=registry)
        self._inference = Histogram(
            "musicclass_inference_seconds",
            "Seconds that a worker takes for a file",
            [],
            registry=registry,
            buckets=HISTOGRAM_SECONDS,
        )

    def count(self, result: PredictResponse | TaskFailure, seconds: float) -> None:
        """Count a file that took a worker `seconds`."""
        self._files.labels(result.status if isinstance(result, TaskFailure) else OK).inc()
        self._inference.observe(seconds)
        if isinstance(result, PredictResponse):
            self._genres.labels(result.genre).inc()
            self._audio.inc(result.duration)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)


class Jobs:
    """Runs jobs in order of submission, in `settings.workers` processes."""

    def __init__(self, settings: ServerSettings):
        self.settings, self.metrics = settings, Metrics()
        self.ready = 0  # workers that have loaded the model
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._features: dict[bytes, TrackFeatures] = {}  # by the hash of the file, the oldest first
        self._seconds = 1.0  # that a file takes, a moving average
        self.metrics.queued.set_function(lambda: self.queued)
        self.metrics.workers.set_function(lambda: self.ready)

    @property
    def queued(self) -> int:
        """The number of files that wait for a worker."""
        return sum(job.status.state == "queued" for job in self._jobs.values())

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Keep the workers running as long as the app."""
        threads = ThreadPoolExecutor(self.settings.workers)
        runners = [asyncio.create_task(self._run(threads)) for _ in range(self.settings.workers)]
        yield
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)
        threads.shutdown(wait=False, cancel_futures=True)

    def check_capacity(self, files: int = 1, size: int = 0) -> None:
        """Raises ProblemError when the queue is full, or can never hold so many files."""
        limit, queued = self.settings.queue_size, self.queued
        if files > limit:
            raise ProblemError(413, "too_large", f"{files} files at once; this server accepts {limit}: send fewer")
        held = sum(len(job.request.data) for job in self._jobs.values() if job.request)
        if queued + files > limit or held + size > self.settings.max_held_bytes:
            seconds = max(1, round(self._seconds * queued / self.settings.workers))
            detail = f"too many files are waiting; try again in {seconds} s"
            raise ProblemError(503, "busy", detail, {"Retry-After": str(seconds)})

    def submit(self, requests: list[PredictRequest]) -> list[Job]:
        """A job for each request. Raises ProblemError as `check_capacity` does, and then submits none."""
        self.check_capacity(len(requests), sum(len(request.data) for request in requests))
        jobs = [Job(request, self.settings.root_path) for request in requests]
        for job in jobs:
            self._jobs[job.status.id] = job
            self._queue.put_nowait(job)
        for id in [id for id, job in self._jobs.items() if job.done.done()][:-KEEP_JOBS]:
            del self._jobs[id]
        return jobs

    def get(self, id: str) -> Job:
        """The job with this id. Raises ProblemError when it doesn't exist, or was done long ago."""
        if id not in self._jobs:
            raise ProblemError(404, "no_such_job", "no such job, or it was done long ago; send the file again")
        return self._jobs[id]

    def cancel(self, job: Job) -> None:
        """Forget a job; one that is queued is never run."""
        self._jobs.pop(job.status.id, None)
        if job.status.state == "queued":
            job.finish(TaskFailure(CANCELLED, "cancelled"))

    async def _run(self, threads: ThreadPoolExecutor) -> None:
        """Run jobs in a pool of one worker: it enforces the limits, and blocks a thread of its own."""
        loop, settings, job, ready = asyncio.get_running_loop(), self.settings, None, False

        def on_progress(progress: float) -> None:
            if job:
                job.status.progress = round(progress, 3)

        make = functools.partial(make_request_task, settings.model, settings.min_confidence, settings.max_seconds)
        with WorkerPool(make, 1, settings.timeout, settings.worker_memory, on_progress) as pool:
            while True:
                job = await self._queue.get() if ready else None
                if job and job.done.done():  # it was cancelled
                    continue
                if job:
                    job.status.state = "running"
                started = time.monotonic()
                request = job.request if job else None
                result = await loop.run_in_executor(threads, _run_in, pool, request, self._features)
                failed = isinstance(result, TaskFailure) and result.status == NO_WORKER
                self.ready += (not failed) - ready
                ready = not failed
                if job:
                    if isinstance(result, _Done):
                        self._keep(result.digest, result.features)
                        result = result.response
                    self._finish(job, result, time.monotonic() - started)
                elif failed:
                    print(f"{result.error}; trying again", file=sys.stderr)
                    await asyncio.sleep(RESTART_DELAY)

    def _finish(self, job: Job, result: PredictResponse | TaskFailure, seconds: float) -> None:
        job.finish(result)
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._jobs.pop, job.status.id, None)
        self._seconds += 0.1 * (seconds - self._seconds)
        self.metrics.count(result, seconds)

    def _keep(self, digest: bytes, features: TrackFeatures) -> None:
        """Keep a file's features for KEEP_SECONDS, and no more than KEEP_FEATURES bytes of all."""
        kept = self._features
        kept[digest] = features
        while sum(each.log_mel.nbytes for each in kept.values()) > KEEP_FEATURES:
            del kept[next(iter(kept))]
        asyncio.get_running_loop().call_later(KEEP_SECONDS, kept.pop, digest, None)


class _Done(NamedTuple):
    """What a worker has made of a file."""

    response: PredictResponse
    features: TrackFeatures
    digest: bytes  # of the file


def _run_in(pool: WorkerPool, request: PredictRequest | None, kept: Mapping[bytes, TrackFeatures]) -> Any:
    """The pool's result as _Done; TaskFailure(NO_WORKER) when its worker can't start, or is closed with the server.

    Without a request, the worker starts.
    """
    digest = hashlib.sha256(request.data).digest() if request else b""
    if request and request.explain and not request.waveform_peaks and (features := kept.get(digest)):
        request = replace(request, data=b"", features=features)
    try:
        ((_, result),) = pool.map([request or WARM_UP])
    except (LibraryError, OSError) as error:
        pool.close()
        return TaskFailure(NO_WORKER, str(error))
    return _Done(result[0], result[1], digest) if isinstance(result, tuple) else result
