"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[Any]]:
    """A binary file beside `path` that takes its place when the block ends well, and vanishes when it doesn't.

    Who may read a file that is there already, may read the new one. A device or a pipe is written to as it is.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # what a link leads to
    made = path.with_name(f".musicclass-{secrets.token_hex(8)}.part")
    try:
        with _told_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            made.touch(exist_ok=False)
        with open(made, "wb") as file:
            if path.exists():
                shutil.copymode(path, made)
            yield file
            if not file.closed:
                sync(file)
        with _told_of(path):
            move(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.chmod(0o600)  # Windows keeps what may not be written to
            made.unlink()
        raise


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Errors name the file that is wanted, not the one that is made first."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


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
