"""Atomic writes: a file is replaced by a complete new one, or stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[Any]]:
    """A temporary binary file in the same folder that replaces `path` after the block, and is deleted on errors.

    An existing file's permissions are kept, a symbolic link's target is replaced; devices and pipes are written to
    directly. Raises OSError that names `path`.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".musicclass-{os.urandom(8).hex()}.part")
    try:
        with _errors_name(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        with open(temporary, "wb") as file:
            if path.exists():
                shutil.copymode(path, temporary)
            yield file
            if not file.closed:
                sync(file)
        with _errors_name(path):
            move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.chmod(0o600)  # Windows doesn't delete read-only files
            temporary.unlink()
        raise


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Make OSErrors name `path` instead of the temporary file."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


def sync(file: IO[Any]) -> None:
    """Flush the content to disk, so that a power cut after the move leaves no empty file."""
    file.flush()
    os.fsync(file.fileno())


def move(source: str | Path, target: str | Path) -> None:
    """Replace `target` by `source`, and flush the folder to disk."""
    os.replace(source, target)
    if os.name == "posix":
        folder = os.open(Path(target).absolute().parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # not supported by some file systems
            os.fsync(folder)
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
