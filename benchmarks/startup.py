"""How long `musicclass predict` takes on 30 s of wav as a whole process, beside importing what it stands on.

python benchmarks/startup.py [--repeat 5] [--model NAME_OR_FOLDER]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common import interleaved, print_table, within, write_music

SECONDS = 30
LIMIT = 1.0  # seconds that predicting may take beyond the imports
IMPORTS = "import numpy, scipy.fft, soundfile, onnxruntime"


def run(folder: str, *arguments: str) -> None:
    """Run Python to its end; its output is shown only when it fails.

    Compiled modules are kept in `folder`, so that the run that doesn't count compiles them, as installing does.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default="gtzan")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wav = write_music(Path(folder) / "music.wav", SECONDS, "WAV")
        times = interleaved(
            {
                "imports alone": lambda: run(folder, "-c", IMPORTS),
                "predict": lambda: run(folder, "-m", "musicclass", "predict", "--model", options.model, str(wav)),
                "--help": lambda: run(folder, "-m", "musicclass", "--help"),
            },
            options.repeat,
        )
    alone = times["imports alone"]
    rows = [(name, f"{np.median(t):.2f}", f"{np.median(t - alone):+.2f}") for name, t in times.items()]
    title = f"whole processes, {SECONDS} s of wav, median of {options.repeat}"
    print_table(title, ("process", "seconds", "beyond imports"), rows)
    print(f"imports: {IMPORTS}")
    longer = float(np.median(times["predict"] - alone))
    print(f"predict: {longer:.2f} s longer than the imports, {within(longer <= LIMIT)} {LIMIT:g} s")


if __name__ == "__main__":
    main()
