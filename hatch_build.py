"""Adds what isn't committed: the tagger's weights, and onnxruntime-web, with which browsers run the models.

hatch runs this for every wheel and editable install; `make` runs it as a script: python hatch_build.py
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
TAGGER_SHA256 = "6a37e7d9fa6cd7e687540b4a4a60e69ea14634adda8019b1312ef0279723f64e"  # of build_tagger's result


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatch. Editable installs get onnxruntime-web from the script alone, as it needs npm."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel":
            fetch_all([MUSICNN] if version == "editable" else [MUSICNN, ONNXRUNTIME_WEB])


class Package(NamedTuple):
    """A package of a registry, and what becomes of its unpacked archive."""

    name: str
    download: tuple[str, ...]  # a command that writes the archive into its working directory
    archive_format: str  # of shutil.unpack_archive
    algorithm: str
    digest: str  # of the archive
    target: Path
    install: Callable[[Path, Path], None]  # (unpacked archive, target)
    version: str  # changes when `install` gives other files
    purpose: str


def fetch_all(packages: list[Package]) -> None:
    """Fetch packages. Where that fails, musicclass is built all the same, and a warning says what it lacks."""
    for package in packages:
        try:
            fetch(package)
        except (RuntimeError, OSError, ImportError) as error:
            print(f"warning: without {package.name}, {package.purpose}: {error}", file=sys.stderr)


def fetch(package: Package) -> None:
    """Put a package's files into its target, unless they are there. Raises RuntimeError, OSError or ImportError."""
    version = package.target / "version.txt"
    if version.exists() and version.read_text() == package.version:
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(package, Path(folder))
        unpacked = Path(folder) / "unpacked"
        shutil.unpack_archive(archive, unpacked, package.archive_format)
        package.target.mkdir(parents=True, exist_ok=True)
        package.install(unpacked, package.target)
    version.write_text(package.version)


def _download(package: Package, folder: Path) -> Path:
    program = shutil.which(package.download[0])
    if program is None:
        raise RuntimeError(f"{package.download[0]} isn't installed; install it, then run: python hatch_build.py")
    result = subprocess.run([program, *package.download[1:]], cwd=folder, capture_output=True, text=True)
    archives = list(folder.iterdir())
    if result.returncode or len(archives) != 1:
        raise RuntimeError(f"it can't be downloaded: {result.stderr.strip()[-300:]}")
    if hashlib.new(package.algorithm, archives[0].read_bytes()).hexdigest() != package.digest:
        raise RuntimeError(f"its {package.algorithm} isn't the pinned one; nothing of it is used")
    return archives[0]


def _install_musicnn(unpacked: Path, target: Path) -> None:
    sys.path.insert(0, str(ROOT))  # hatch doesn't
    from build_tagger import build_tagger, read_checkpoint

    checkpoint = unpacked / "musicnn/MSD_musicnn"
    names = (".index", ".data-00000-of-00001")
    graph = build_tagger(read_checkpoint(*((checkpoint / name).read_bytes() for name in names)))
    digest = hashlib.sha256(graph).hexdigest()
    if digest != TAGGER_SHA256:
        raise RuntimeError(f"the graph has SHA-256 {digest}, not the pinned {TAGGER_SHA256}; nothing of it is used")
    (target / "tagger.onnx").write_bytes(graph)
    licence = (unpacked / "musicnn-0.1.0.dist-info/LICENSE.md").read_text(encoding="utf-8")
    attribution = "tagger.onnx is converted from MSD_musicnn of musicnn 0.1.0 by Jordi Pons and Xavier Serra."
    (target / "LICENSE.md").write_text(f"{attribution}\n\n{licence}", encoding="utf-8")


def _install_onnxruntime_web(unpacked: Path, target: Path) -> None:
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(unpacked / "package/dist" / name, target)


MUSICNN = Package(
    name="musicnn==0.1.0",
    download=(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "musicnn==0.1.0"),
    archive_format="zip",
    algorithm="sha256",
    digest="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    target=ROOT / "src/musicclass/pretrained/musicnn",
    install=_install_musicnn,
    version=TAGGER_SHA256,
    purpose="models predict without the tagger, from their first branch alone",
)
ONNXRUNTIME_WEB = Package(
    name="onnxruntime-web@1.30.0",
    download=("npm", "pack", "--silent", "onnxruntime-web@1.30.0"),
    archive_format="gztar",
    algorithm="sha512",
    digest="ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
    target=ROOT / "src/musicclass/server/static/ort",
    install=_install_onnxruntime_web,
    version="onnxruntime-web@1.30.0",
    purpose="the web UI can't classify in the browser",
)

if __name__ == "__main__":
    fetch_all([MUSICNN, ONNXRUNTIME_WEB])
