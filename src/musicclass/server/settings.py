"""The settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from musicclass.saved_model import DEFAULT_MODEL
from musicclass.workers import usable_cores


@dataclass(frozen=True)
class ServerSettings:
    """What `musicclass serve` sets by its options."""

    model: str = DEFAULT_MODEL
    min_confidence: float | None = None
    library: Path | None = None  # a table written by `musicclass library`
    write_tags: bool = False  # whose genres may be written into the tags of its files
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None  # required of every request
    root_path: str = ""  # under which a reverse proxy serves it, such as /music
    origins: tuple[str, ...] = ()  # other sites whose pages may send requests
    workers: int = field(default_factory=usable_cores)
    timeout: float = 60.0  # seconds for one file
    worker_memory: float = 1e9  # bytes for one worker
    max_seconds: float = 7200.0  # of a file that are decoded
    max_upload: int = 200_000_000  # bytes of one request
    queue_size: int = 100  # files that wait for a worker
    max_held_bytes: int = 1_000_000_000  # of all requests together; at least those of two
    receive_timeout: float = 20.0  # seconds within which a sender has to send something
    access_log: bool = True  # a line for each request, without tokens and names of files
    shutdown_timeout: int = 3  # seconds for open requests when the server stops

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", (self.token or "").strip() or None)
        object.__setattr__(self, "root_path", f"/{self.root_path.strip('/')}".rstrip("/"))
        object.__setattr__(self, "max_held_bytes", max(self.max_held_bytes, 2 * self.max_upload))
