"""Folders of music that change: waits until files have come, changed or gone, and are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from musicclass.audio_files import AUDIO_SUFFIXES
from musicclass.errors import LibraryError, import_optional
from musicclass.library.remote import is_remote

SETTLE_SECONDS = 2.0  # without a change, after which files count as complete


def watch(folders: Sequence[str], out: Path) -> Iterator[None]:
    """Yields once when it begins to watch, and then after changes, as soon as there are no more for SETTLE_SECONDS.

    Changes of the table `out` and of the files beside it with the same beginning of the name don't count. Raises
    LibraryError for addresses, and MissingExtraError.
    """
    watchfiles = import_optional("watchfiles", "watch")
    for folder in filter(is_remote, folders):
        raise LibraryError(f"{folder}: can't be watched; give a folder of this machine, or omit --watch")
    own = str(out.absolute())

    def is_music(_: object, path: str) -> bool:
        if os.path.basename(path).startswith(".") or path.startswith(own):
            return False
        is_folder = os.path.isdir(path) or not os.path.exists(path)  # or was one
        return is_folder or Path(path).suffix.lower() in AUDIO_SUFFIXES

    pending, timeout = True, round(1000 * SETTLE_SECONDS)
    for changes in watchfiles.watch(*folders, watch_filter=is_music, rust_timeout=timeout, yield_on_timeout=True):
        if changes:
            pending = True
        elif pending:
            pending = False
            yield
