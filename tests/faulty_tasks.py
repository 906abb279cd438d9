"""Tasks that fail in the ways a decoder can: the file's name says how."""

from __future__ import annotations

import functools
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from musicclass.library import run

# A file that workers, which inherit the environment, look for.
BLOCK = Path(os.environ.setdefault("MUSICCLASS_TEST_BLOCK", f"{tempfile.gettempdir()}/musicclass-test-{os.getpid()}"))


def make_task(log: str = "", delay: float = 0.0, *_: Any) -> Any:
    """A task with a made-up row for each file; it appends the names of processed files to the file `log`."""

    def task(file: str) -> dict[str, Any]:
        name = Path(file).stem
        if log:
            with open(log, "a") as lines:
                print(name, file=lines)
        time.sleep(delay)
        fail(name)
        confidence = (sum(os.fsencode(file)) % 1000) / 1000
        return {"duration": 60.0, "genre": "jazz", "top_genre": "jazz", "confidence": confidence, "familiarity": 1.0,
                "prob_jazz": confidence, "model": "gtzan"}  # fmt: skip

    return task


def fail(name: str) -> None:
    """Fail as the name says, if it does."""
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name.startswith("kill"):
        mark = Path(f"{BLOCK}-{name}")
        if name == "kill" or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        mark.unlink()
    elif name.startswith("exit"):
        os._exit(3)
    elif name.startswith("hang"):
        time.sleep(3600)
    elif name.startswith("raise"):
        raise RuntimeError("unexpected")
    elif name.startswith("swell"):
        blocks = []
        while True:
            blocks.append(bytearray(os.urandom(1 << 20) * 16))


def fail_to_start() -> Any:
    raise RuntimeError("the model is missing")


def exit_at_start() -> Any:
    os._exit(7)


def make_request_task(*arguments: Any) -> Any:
    """The server's task, for some names a faulty one. While BLOCK exists, it can't start, and "hold" isn't done."""
    from musicclass.server import inference

    if BLOCK.exists():
        raise RuntimeError("the model is missing")
    predict = inference.make_request_task(*arguments)

    def task(request: Any) -> Any:
        name = getattr(request, "name", "")
        fail(name)
        while name == "hold" and BLOCK.exists():
            time.sleep(0.02)
        return predict(request)

    return task


if __name__ == "__main__":  # a run to be interrupted: FOLDER OUT LOG DELAY
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored by the parent
    folder, out, log, delay = sys.argv[1:]
    run.make_predict_task = functools.partial(make_task, log, float(delay))
    try:
        run.run([folder], Path(out), run.ScanOptions(workers=2))
    except KeyboardInterrupt:
        sys.exit(130)
