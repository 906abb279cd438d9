"""Fetches what browsers need to run the network (onnxruntime-web) into the package: it is built in, not committed.

hatch runs this for every wheel; `make` runs it by itself: python hatch_build.py
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
except ImportError:  # run by `make`, outside of a build
    BuildHookInterface = object  # type: ignore[assignment,misc]

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")
TARGET = Path(__file__).parent / "src/musicclass/web/static/ort"
DONE = TARGET / "version.txt"


def fetch() -> None:
    """Put the files in place, unless they are there. Raises RuntimeError with what to do."""
    if DONE.exists() and DONE.read_text() == PACKAGE:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed; with it (Node.js), the page can also listen in the browser alone")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise RuntimeError(f"npm can't get {PACKAGE}: {done.stderr.strip()[-300:]}")
        digest = hashlib.sha512(archives[0].read_bytes()).digest()
        if base64.b64encode(digest).decode() != SHA512:
            raise RuntimeError(f"{PACKAGE} is not the archive that it was; nothing of it is used")
        TARGET.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archives[0]) as archive:
            for name in FILES:
                content = archive.extractfile(f"package/{name}")
                assert content is not None
                (TARGET / Path(name).name).write_bytes(content.read())
    DONE.write_text(PACKAGE)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """A wheel gets the files; without npm it is built all the same, and its page says what is missing."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable" and self.target_name == "wheel":
            tell()


def tell() -> None:
    """Fetch; when that fails, say so and go on."""
    try:
        fetch()
    except RuntimeError as error:
        print(f"without what listens in the browser alone: {error}", file=sys.stderr)


if __name__ == "__main__":
    tell()
