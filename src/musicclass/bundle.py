"""A model on disk: a folder with model.onnx (MFCC in, logits out) and card.json (what it is and what it saw)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicclass.confidence import Confidence
from musicclass.config import FeatureConfig, from_dict
from musicclass.errors import BundleError, ConfigError
from musicclass.files import write_atomically, write_text

if TYPE_CHECKING:
    import onnxruntime

MODEL, CARD = "model.onnx", "card.json"
FORMAT = 2
SIDE_NAMES = {
    "train": "training",
    "valid": "validation",
    "test": "test",
    "folds": "held-out",  # in folds by artist, of models made alike that didn't train on them, as this one did
}
JUDGED = ("test", "valid", "folds")
PRETRAINED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class Bundle:
    """A model that has been checked against its card."""

    path: Path
    genres: tuple[str, ...]  # in the order of the logits
    features: FeatureConfig
    confidence: Confidence
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """What the card calls it."""
        return str(self.card["name"])

    def session(self) -> onnxruntime.InferenceSession:
        """The network. Raises BundleError when it can't be run, or takes or gives something else than the card says."""
        try:
            session = open_network((self.path / MODEL).read_bytes())
        except Exception as error:  # onnxruntime's errors have no common base
            raise BundleError(f"{self.path / MODEL}: can't be run ({error}); train or copy it again") from None
        inputs = [tuple(item.shape[2:]) for item in session.get_inputs()]
        outputs = [tuple(item.shape[1:]) for item in session.get_outputs()]
        wanted = [(self.features.n_mfcc,)], [(len(self.genres),)]
        if (inputs, outputs) != wanted:
            raise BundleError(
                f"{self.path}: its network has inputs {inputs} and outputs {outputs}, "
                f"its card says {wanted[0]} MFCCs and {wanted[1]} genres; they don't belong together"
            )
        return session


def open_network(content: bytes) -> onnxruntime.InferenceSession:
    """An ONNX network, on one thread, so that an answer never depends on the machine's load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def judged_side(card: dict[str, Any]) -> str:
    """Which of its results the card is best judged by: "test", or, where that is to come, the first that there is."""
    return next(side for side in JUDGED if card["metrics"].get(side))


def seed_folders(folder: Path) -> list[Path]:
    """The bundles that `train --seeds` made below a folder; none, where it is a bundle itself, or no such folder."""
    return [] if (folder / CARD).exists() else sorted(path.parent for path in folder.glob(f"seed-*/{CARD}"))


def pretrained_names() -> list[str]:
    """The models that ship with musicclass."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CARD}"))


def load_bundle(source: str | Path = "gtzan") -> Bundle:
    """Open a bundle's folder, or one that ships, by its name.

    Raises BundleError when it is missing, damaged, or its network isn't the one its card was written for.
    """
    shipped = str(source) in pretrained_names()
    path = PRETRAINED / str(source) if shipped else Path(source)
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        digest = hashlib.sha256((path / MODEL).read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path}: not a model ({error.filename} is missing); give a folder made by `musicclass train`, "
            f"or the name of one that ships: {', '.join(pretrained_names()) or 'there is none'}"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: can't be read ({error}); copy it again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise BundleError(f"{path / CARD}: not a card of format {FORMAT}; train anew, or update musicclass")
    try:
        genres = tuple(str(genre) for genre in card["genres"])
        features = from_dict(FeatureConfig, card["config"]["features"])
        confidence = Confidence.from_dict(card["confidence"]) if "confidence" in card else Confidence()
        same = card["sha256"] == digest
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise BundleError(f"{path / CARD}: damaged ({error}); train or copy it again") from None
    if not same:
        raise BundleError(f"{path}: {MODEL} is not the one that {CARD} describes; train or copy it again")
    if len(set(genres)) != len(genres) or len(genres) < 2:
        raise BundleError(f"{path / CARD}: damaged: needs two different genres or more, has {genres}")
    if not confidence.fits(len(genres)):
        raise BundleError(
            f"{path / CARD}: damaged: {len(genres)} genres and confidence in others don't belong together"
        )
    return Bundle(path, genres, features, confidence, card)


def save_bundle(path: Path, model: bytes, card: dict[str, Any]) -> Bundle:
    """Write network and card, and check what was written. Between the two writes an old card refuses the new model."""
    card = {"format": FORMAT, **card, "sha256": hashlib.sha256(model).hexdigest()}
    with write_atomically(path / MODEL) as file:
        file.write(model)
    write_text(path / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    bundle = load_bundle(path.resolve())
    bundle.session()
    return bundle
