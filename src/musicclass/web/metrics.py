"""What the server counts, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from musicclass.library.workers import Failure


class Metrics:
    """Counters of one server."""

    MEDIA_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._files = Counter("musicclass_files", "Files, by what came of them", ["status"], registry=self._registry)
        self._music = Counter("musicclass_music_seconds", "Seconds of music heard", registry=self._registry)
        self._genres = Counter("musicclass_genres", "Files by genre", ["genre"], registry=self._registry)
        self._seconds = Histogram(
            "musicclass_hearing_seconds",
            "Seconds that a worker took for a file",
            registry=self._registry,
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
        )
        self._waiting = Gauge("musicclass_waiting_files", "Files that wait for a worker", registry=self._registry)
        self._workers = Gauge("musicclass_workers", "Workers that have loaded the model", registry=self._registry)

    def heard(self, job: Any) -> None:
        """Count a finished job."""
        failed = isinstance(job.value, Failure)
        self._files.labels(job.value.status if failed else "ok").inc()
        self._seconds.observe(job.seconds)
        if not failed:
            self._music.inc(job.value["duration"])
            self._genres.labels(job.value["genre"]).inc()

    def page(self, jobs: Any) -> bytes:
        """All of it as text."""
        self._waiting.set(jobs.waiting)
        self._workers.set(jobs.ready)
        return generate_latest(self._registry)
