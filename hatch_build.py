"""Adds onnxruntime-web, with which browsers run the model, to the package: fetched by npm, not committed.

hatch runs this for every wheel; `make` runs it as a script: python hatch_build.py
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    BuildHookInterface = object  # type: ignore[assignment,misc]

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TARGET = Path(__file__).parent / "src/musicclass/server/static/ort"
VERSION = TARGET / "version.txt"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatch. Wheels contain the files; editable installs get them from the script."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable" and self.target_name == "wheel":
            fetch_or_warn()


def fetch_or_warn() -> None:
    """`fetch`; where that fails, the package is built all the same, and a warning says what it lacks."""
    try:
        fetch()
    except RuntimeError as error:
        print(f"warning: without {PACKAGE}, the web UI can't classify in the browser: {error}", file=sys.stderr)


def fetch() -> None:
    """Put the files into TARGET, unless they are there. Raises RuntimeError with the cause."""
    if VERSION.exists() and VERSION.read_text() == PACKAGE:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm isn't installed; install Node.js, then run: python hatch_build.py")
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if result.returncode or not archives:
            raise RuntimeError(f"npm can't download it: {result.stderr.strip()[-300:]}")
        if base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode() != SHA512:
            raise RuntimeError("its SHA-512 isn't the pinned one; nothing of it is used")
        _extract(archives[0])


def _extract(archive: Path) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as files:
        for name in FILES:
            content = files.extractfile(f"package/dist/{name}")
            assert content is not None
            (TARGET / name).write_bytes(content.read())
    VERSION.write_text(PACKAGE)


if __name__ == "__main__":
    fetch_or_warn()
