"""Progress of long operations.

Only the command line prints: other modules take a `ProgressFn`, which the command line sets to `progress_bar`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class ProgressFn(Protocol):
    """Yields items one by one and reports how many are done."""

    def __call__(self, items: Sequence[T], description: str) -> Iterable[T]: ...


def no_progress(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, without a report."""
    return items


def progress_bar(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with a progress bar on stderr if that is a terminal."""
    with make_progress() as bar:
        yield from bar.track(items, description=description)


def make_progress(*columns: Any) -> Any:
    """A rich.progress.Progress on stderr, shown if that is a terminal, with further `columns` before the ETA."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *columns, TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # stdout is for results
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
