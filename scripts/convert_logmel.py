"""Convert log-mel spectrograms (ids, X uint8 (n_tracks, n_mels, n_frames)) into an archive for `musicclass train`.

    python scripts/convert_logmel.py IN.npz OUT.npz [EMBEDDINGS.npz]

Each track was scaled from its own minimum and maximum, which are unknown, to 0..255; the values are converted to
-80..0 dB. The genre of `blues.00000` is blues, that of `60s_high_01` is 60s. Artists and hashes of GTZAN's tracks come
from the package's index. EMBEDDINGS.npz (ids, embeddings (n, 200)) has the tagger's mean embeddings of some tracks; see
gtzan_embeddings.py.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicclass.config import FeatureConfig
from musicclass.datasets import Track, feature_archive, gtzan
from musicclass.errors import DatasetError, MusicClassError
from musicclass.features import TrackFeatures
from musicclass.tagger import TrackEmbeddings


def tracks(source: Path, embeddings: Path | None = None) -> Iterator[tuple[Track, TrackFeatures]]:
    """The tracks of the file `source` with their features. Raises DatasetError."""
    vectors = {}
    if embeddings:
        with np.load(embeddings, allow_pickle=False) as file:
            vectors = dict(zip(file["ids"].tolist(), file["embeddings"][:, None], strict=True))
    try:
        with np.load(source, allow_pickle=False) as file:
            ids, spectrograms = [str(name) for name in file["ids"]], file["X"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{source}: needs the arrays ids and X: {error}") from None
    if spectrograms.ndim != 3 or spectrograms.dtype != np.uint8 or len(ids) != len(spectrograms):
        raise DatasetError(f"{source}: X must be uint8 (n_tracks, n_mels, n_frames), one for each of the ids")
    for name, spectrogram in zip(ids, spectrograms, strict=True):
        in_gtzan = name in gtzan.index()
        track = gtzan.make_track(name) if in_gtzan else Track(name, re.split(r"[._]", name)[0])
        frames = (spectrogram.T.astype(np.float32) / 255 - 1) * 80
        duration = len(frames) / FeatureConfig().frames_per_second
        patches = TrackEmbeddings(vectors[name], np.array([[0.0, duration]])) if name in vectors else None
        yield track, TrackFeatures(frames, duration, patches)


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 2
    source, target, *embeddings = map(Path, sys.argv[1:])
    try:
        count = feature_archive.write(target, tracks(source, *embeddings), FeatureConfig(n_mels_kept=127))
    except MusicClassError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{target}: {count} tracks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
