"""How a server hears, and whom it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from musicclass.library.run import usable_cores


@dataclass(frozen=True)
class Settings:
    """Everything that `musicclass serve` can be told."""

    model: str = "gtzan"
    min_confidence: float | None = None
    library: Path | None = None  # a table made by `musicclass library`
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None  # every request has to bring it
    origins: tuple[str, ...] = ()  # other sites whose pages may ask
    workers: int = field(default_factory=usable_cores)
    timeout: float = 60.0  # seconds for one file
    max_memory: float = 1e9  # bytes for one worker
    max_seconds: float = 7200.0  # of a file that are heard
    max_body: int = 200_000_000  # bytes of one request
    queue: int = 100  # files that may wait
    max_waiting_bytes: int = 1_000_000_000  # of all of them together; at least those of two requests
    slow: float = 20.0  # seconds within which a sender has to send something

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_waiting_bytes", max(self.max_waiting_bytes, 2 * self.max_body))
