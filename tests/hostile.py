"""Tasks for workers that do to them what a decoder at its worst would; a path's name says what."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from musicclass.library.run import Options, run
from musicclass.web import hearing


def make_task(log: str = "", delay: float = 0.0) -> Any:
    """Rows as of a real listener, made up from the path; what is heard is appended to the file `log`."""

    def task(path: str) -> dict[str, Any]:
        name = Path(path).stem
        if log:
            with open(log, "a") as file:
                print(name, file=file)
        time.sleep(delay)
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif name.startswith("exit"):
            os._exit(3)
        elif name.startswith("hang"):
            time.sleep(3600)
        elif name.startswith("raise"):
            raise RuntimeError("what nobody foresaw")
        elif name.startswith("swell"):
            held = []
            while True:
                held.append(bytearray(os.urandom(1 << 20) * 16))
        sure = (hash_of(path) % 1000) / 1000
        return {"duration": 60.0, "genre": "jazz", "best_guess": "jazz", "confidence": sure, "familiarity": 1.0,
                "p_jazz": sure}  # fmt: skip

    return task


def make_decoder(*_: Any) -> Any:
    return make_task()


def hash_of(path: str) -> int:
    return sum(os.fsencode(path))


def make_nothing() -> Any:
    raise RuntimeError("no such model here")


NOT_YET = Path(tempfile.gettempdir()) / f"musicclass-not-yet-{os.getuid() if hasattr(os, 'getuid') else 0}"


def make_nothing_yet(*arguments: Any) -> Any:
    """A hearer, but not while the file NOT_YET is there."""
    if NOT_YET.exists():
        raise RuntimeError("no such model yet")
    return hearing.make_hearer(*arguments)


def make_dead() -> Any:
    os._exit(7)


if __name__ == "__main__":  # a run of its own, to be killed: FOLDER OUT LOG DELAY
    import functools

    folder, out, log, delay = sys.argv[1:]
    task = functools.partial(make_task, log, float(delay))
    try:
        run([folder], Path(out), Options(workers=2), make_task=task)
    except KeyboardInterrupt:
        sys.exit(130)
