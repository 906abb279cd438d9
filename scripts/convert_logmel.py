"""Turn log-mel pictures (ids, X uint8 (n, bands, columns)) into an archive that `musicclass train` reads.

    python scripts/convert_logmel.py IN.npz OUT.npz

Each track's values 0..255 lie between its own minimum and maximum, which are not known; they are
taken as -80..0 dB. The true range of a recording is lost where its floor lies higher.
The genre of `blues.00000` is blues, that of `60s_high_01` is 60s. Artists and exact replicas of
GTZAN's tracks come from the index in the package.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicclass.config import FeatureConfig
from musicclass.datasets import Track, archive, gtzan
from musicclass.errors import DatasetError, MusicClassError
from musicclass.features import Array


def tracks(source: Path) -> Iterator[tuple[Track, Array]]:
    try:
        with np.load(source, allow_pickle=False) as file:
            ids, pictures = [str(name) for name in file["ids"]], file["X"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{source}: needs the arrays ids and X: {error}") from None
    if pictures.ndim != 3 or pictures.dtype != np.uint8 or len(ids) != len(pictures):
        raise DatasetError(f"{source}: X must be uint8 (tracks, bands, columns), one for each of the ids")
    for name, picture in zip(ids, pictures, strict=True):
        known = name in gtzan.index()
        track = gtzan.describe(name) if known else Track(name, re.split(r"[._]", name)[0])
        yield track, (picture.T.astype(np.float32) / 255 - 1) * 80


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = map(Path, sys.argv[1:])
    try:
        count = archive.write(target, tracks(source), FeatureConfig(n_bands=127))
    except MusicClassError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{target}: {count} tracks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
