"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[Any]]:
    """A binary file beside `path` that takes its place when the block ends well, and vanishes when it doesn't.

    Who may read a file that is there already, may read the new one.
    """
    path = Path(os.path.realpath(path))  # what a link leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".musicclass-{secrets.token_hex(8)}.part")
    try:
        with open(made, "xb") as file:
            if path.exists():
                os.chmod(made, stat.S_IMODE(path.stat().st_mode))
            yield file
            if not file.closed:
                sync(file)
        move(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
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


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
