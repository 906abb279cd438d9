"""Saved models: folders with all that is needed to use, verify and retrain a model.

model.onnx       log-mel windows -> calibrated probabilities and familiarity (training/graph.py)
frontend.onnx    samples -> log-mel windows, and patches for the tagger; for the browser
backbone.onnx    MFCC windows -> features (n_windows, d) of the CNN-LSTMs, for models that build on them; optional
pooling.onnx     the tagger's outputs -> embeddings of windows, tags; for the browser, only with models that use it
card.json        genres, configuration, data, calibration and metrics
split.csv        columns track, split, artist; `train --split` reads it
predictions.csv  columns subset, track, artist, label, predicted, confidence, familiarity, prob_<genre>
history.csv      loss and accuracy per epoch
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicclass.config import FeatureConfig, from_dict
from musicclass.errors import ConfigError, ModelError
from musicclass.files import write_atomically, write_text
from musicclass.onnx_session import create_session

if TYPE_CHECKING:
    import onnxruntime

MODEL, FRONTEND, POOLING, CARD = "model.onnx", "frontend.onnx", "pooling.onnx", "card.json"
BACKBONE = "backbone.onnx"
BASE_MODEL = "music"  # the pretrained model whose backbone.onnx own genres are based on
SPLIT, PREDICTIONS, HISTORY = "split.csv", "predictions.csv", "history.csv"
FORMAT = 3
DEFAULT_MODEL = "music"  # of the command line, Python, the server and beets
SUBSET_NAMES = {"train": "training", "valid": "validation", "test": "test", "cv": "cross-validation"}
METRICS_PREFERENCE = ("test", "cv", "valid")  # least biased first
PRETRAINED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class SavedModel:
    """A model whose files match its card."""

    path: Path
    genres: tuple[str, ...]  # in the order of the network's outputs
    features: FeatureConfig
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name in its card."""
        return str(self.card["name"])

    @property
    def uses_tagger(self) -> bool:
        """Whether model.onnx takes embeddings of the tagger (tagger.py) as well."""
        return "tagger" in str(self.card["config"].get("model", {}).get("architecture", "")).split("+")

    def create_session(self) -> onnxruntime.InferenceSession:
        """An ONNX Runtime session for model.onnx. Raises ModelError when it is invalid or doesn't match the card."""
        try:
            session = create_session((self.path / MODEL).read_bytes())
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ModelError(f"{self.path / MODEL}: invalid graph ({error}); train or copy it again") from None
        sizes = {item.name: item.shape[-1] for item in (*session.get_inputs(), *session.get_outputs()) if item.shape}
        expected = {"windows": self.features.n_mels_kept, "probabilities": len(self.genres)}
        for name, size in expected.items():
            if sizes.get(name) != size:
                raise ModelError(
                    f"{self.path}: {name} of {MODEL} have size {sizes.get(name)}, those of {CARD} {size}; "
                    "copy both from one model"
                )
        return session

    def read_table(self, name: str) -> list[dict[str, str]]:
        """The rows of SPLIT, PREDICTIONS or HISTORY; an empty list if the file is missing."""
        path = self.path / name
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def best_available_metrics(card: dict[str, Any], key: str = "accuracy") -> str:
    """The first of METRICS_PREFERENCE whose metrics in the card include `key`. Raises ModelError when none does."""
    for subset in METRICS_PREFERENCE:
        if key in card["metrics"].get(subset, {}):
            return subset
    raise ModelError(f"{card['name']}: its {CARD} has no metrics with {key}; evaluate the model on DATA, or retrain it")


def seed_runs(folder: Path) -> list[Path]:
    """The models that `train --n-seeds` saved below a folder; empty if the folder itself is a model, or missing."""
    return [] if (folder / CARD).exists() else sorted(path.parent for path in folder.glob(f"seed-*/{CARD}"))


def list_pretrained() -> list[str]:
    """The names of the pretrained models."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CARD}"))


def load_model(source: str | Path = DEFAULT_MODEL) -> SavedModel:
    """Load a saved model from its folder, or a pretrained model by its name.

    Raises ModelError when files are missing or damaged, or when model.onnx doesn't have the card's checksum.
    """
    path = PRETRAINED / str(source) if str(source) in list_pretrained() else Path(source)
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        digest = hashlib.sha256((path / MODEL).read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{path}: not a model ({error.filename} is missing); give a folder made by `musicclass train`, "
            f"or the name of a pretrained model: {', '.join(list_pretrained()) or 'none is installed'}"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read ({error}); copy it again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{path / CARD}: not of format {FORMAT}; retrain the model, or update musicclass")
    try:
        genres = tuple(str(genre) for genre in card["genres"])
        features = from_dict(FeatureConfig, card["config"]["features"])
        matches = card["sha256"] == digest
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{path / CARD}: damaged ({error}); train or copy it again") from None
    if not matches:
        raise ModelError(f"{path}: {MODEL} doesn't have the checksum in {CARD}; train or copy it again")
    if len(set(genres)) != len(genres) or len(genres) < 2:
        raise ModelError(f"{path / CARD}: needs two or more distinct genres, not {genres}; train or copy it again")
    return SavedModel(path, genres, features, card)


def save_model(
    path: Path, model: bytes, frontend: bytes, card: dict[str, Any], pooling: bytes = b"", backbone: bytes = b""
) -> SavedModel:
    """Write the graphs that aren't empty, then the card, and load them again to verify them.

    In between, an older card doesn't match the new graph, so that a model is never mixed from two.
    """
    card = {"format": FORMAT, **card, "sha256": hashlib.sha256(model).hexdigest()}
    for name, content in {MODEL: model, FRONTEND: frontend, POOLING: pooling, BACKBONE: backbone}.items():
        if content:
            with write_atomically(path / name) as file:
                file.write(content)
    write_text(path / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    saved = load_model(path.resolve())
    saved.create_session()
    return saved
