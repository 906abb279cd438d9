"""The command line. Results go to stdout, everything else to stderr.

Exit status: 0 success, 1 some files failed, 2 usage error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from musicclass.cli import evaluate, library, listen, predict, serve, similar, train
from musicclass.errors import MusicClassError, escape_control_chars

app = typer.Typer(
    help="Music genre classification: predict, organize a library, serve an API, train and evaluate models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from musicclass import __version__

        print(f"musicclass {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for command in (
    predict.predict, listen.listen, library.library, library.tag, similar.similar, serve.serve, train.train, train.tune,
    train.cross_validate, evaluate.evaluate, evaluate.compare, train.extract_features,
):  # fmt: skip
    app.command()(command)


def _prepare_streams() -> None:
    """Streams that the caller closed, as by >&-, discard what is written; the others have one encoding and line end."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"  # files don't depend on the code page
            stream.reconfigure(encoding=encoding, errors="backslashreplace", newline="\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # file names are bytes


def main() -> int:
    """Run the command line; returns the exit status."""
    _prepare_streams()
    warnings.showwarning = lambda message, *_, **__: print(escape_control_chars(f"warning: {message}"), file=sys.stderr)
    try:
        return int(app(standalone_mode=False) or 0)
    except MusicClassError as error:
        print(*map(escape_control_chars, str(error).splitlines()), sep="\n", file=sys.stderr)
        return 2
    except OSError as error:  # closed pipe, full disk, missing write permission
        if not isinstance(error, BrokenPipeError):
            print(f"{error}; output is incomplete", file=sys.stderr)
        with contextlib.suppress(OSError, AttributeError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        show = getattr(error, "show", None)  # click's usage errors
        if show is None:
            raise
        show()
        if any(name.startswith("-") and Path(name).is_file() for name in sys.argv[1:]):
            print("For a file whose name begins with a dash, write ./ before it.", file=sys.stderr)
        return 2


def run() -> None:
    """The console script."""
    sys.exit(main())
