"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[Any]]:
    """A binary file beside `path` that takes its place when the block ends well, and vanishes when it doesn't."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(handle, "wb") as file:
            yield file
            if not file.closed:
                sync(file)
        os.chmod(name, 0o666 & ~_umask())
        move(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def sync(file: IO[Any]) -> None:
    """Have what was written on the disk, so that a power cut after a move leaves no empty file."""
    file.flush()
    os.fsync(file.fileno())


def move(source: str | Path, target: str | Path) -> None:
    """Put one file in place of another, for good."""
    os.replace(source, target)
    if os.name == "posix":
        folder = os.open(Path(target).absolute().parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some file systems can't
            os.fsync(folder)
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
