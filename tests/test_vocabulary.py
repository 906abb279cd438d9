"""The vocabulary of code, messages and documentation: standard terms instead of retired ones; length of the docs."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

RETIRED = re.compile(
    r"(?<![a-z])(told|tells?|telling|heard|hears?|hearing|surest|surer|how\s+sure|judg(?:es?|ed|ing)|learnt|strange[rst]*"
    r"|whole\s+numbers?|goes\s+on|by\s+hand|is\s+none|(?<!there )is\s+no\s+[a-z]+|an\s+answer|stretch(?:es|ed)?"
    r"|left\s+out|made\s+alike|worth|pictures?|best[\s_]guess)(?![a-z])",
    re.IGNORECASE,
)
EXCEPTIONS = re.compile(
    r"time_stretch|\.tell\b|def tell\b"  # a setting and librosa's function; a file's method
    r"|is None"  # Python
    r"|(?:align|justify)-\w+:\s*stretch|</?picture|tags\.picture"  # CSS, HTML, jsmediatags
    r'|flac\.Picture|add_picture|metadata_block_picture|"pictures"'  # mutagen
)
VARIABLES = {"far", "near", "found", "some", "one", "both", "told", "heard", "worth", "sure"}
SUFFIXES = {".py", ".js", ".html", ".css", ".md", ".toml", ".cff", ".yml", ".yaml"}
NAMES = {"Makefile", "run", "wheel"}
GENERATED = ("src/musicclass/server/static/lib/", "tests/test_vocabulary.py")
DOCUMENTATION = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/")
MAX_WORDS = 8_000


def source_files() -> list[Path]:
    """The text files of the repository, or of an unpacked archive of it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "docs", "scripts", "benchmarks")
        paths = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
        listing = [path.relative_to(ROOT).as_posix() for path in paths]
    names = [name for name in listing if name and not name.startswith(GENERATED)]
    paths = [ROOT / name for name in names if Path(name).suffix in SUFFIXES or Path(name).name in NAMES]
    return [path for path in paths if path.is_file()]


def retired_words(text: str) -> Iterator[tuple[int, str]]:
    """The line numbers and the retired words of a text, also where they are broken over two lines."""
    for match in RETIRED.finditer(EXCEPTIONS.sub(lambda exception: " " * len(exception[0]), text)):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def variables(path: Path) -> Iterator[tuple[int, str]]:
    """The line numbers and names of variables and parameters of a Python file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def test_texts_have_no_retired_words():
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in source_files()
        for line, word in retired_words(path.read_text(encoding="utf-8"))
    ]
    assert not hits, f"{len(hits)} retired words:\n" + "\n".join(hits)


def test_variables_are_nouns():
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in source_files()
        if path.suffix == ".py"
        for line, name in variables(path)
        if name in VARIABLES
    ]
    assert not hits, f"{len(hits)} variables:\n" + "\n".join(hits)


def test_help_has_no_retired_words(run):
    from musicclass.cli.app import app

    commands = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]
    assert len(commands) >= 9
    for arguments in ([], *([command] for command in commands)):
        status, out, _ = run(*arguments, "--help")
        assert status == 0 and out and list(retired_words(out)) == [], arguments


def test_documentation_is_short():
    texts = [path for path in source_files() if path.suffix == ".md"]
    counts = {
        path.relative_to(ROOT).as_posix(): len(
            [word for word in path.read_text(encoding="utf-8").split() if re.search(r"\w", word)]
        )
        for path in texts
        if path.relative_to(ROOT).as_posix().startswith(DOCUMENTATION)
    }
    if not counts:
        pytest.skip("no documentation here")
    assert sum(counts.values()) <= MAX_WORDS, counts
