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
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicclass.config import FeatureConfig, from_dict
from musicclass.errors import UNPRINTABLE, ConfigError, ModelError
from musicclass.files import write_atomically, write_text
from musicclass.onnx_session import check_self_contained, create_session, run_limited
from musicclass.prediction import UNKNOWN

if TYPE_CHECKING:
    import onnxruntime

    from musicclass.features import Array

MODEL, FRONTEND, POOLING, CARD = "model.onnx", "frontend.onnx", "pooling.onnx", "card.json"
BACKBONE = "backbone.onnx"
BASE_MODEL = "music"  # the pretrained model whose backbone.onnx own genres are based on
SPLIT, PREDICTIONS, HISTORY = "split.csv", "predictions.csv", "history.csv"
FORMAT = 3
DEFAULT_MODEL = "music"  # of the command line, Python, the server and beets
SUBSET_NAMES = {"train": "training", "valid": "validation", "test": "test", "cv": "cross-validation"}
METRICS_PREFERENCE = ("test", "cv", "valid")  # least biased first
PRETRAINED = Path(__file__).parent / "pretrained"
OUTPUTS = ("probabilities", "familiarity", "window_probabilities", "window_familiarity")  # of model.onnx
COLUMNS = {SPLIT: ("track", "split", "artist"), HISTORY: ("epoch",)}
FIELDS = {  # of the card, those that are used -> type
    "name": str, "summary": str, "genres": list, "config.features": dict, "config.model.architecture": str,
    "data.split_name": str, "data.split_seed": int, "metrics": dict, "sha256": str,
}  # fmt: skip
COUNTS = ("n_tracks", "n_artists")
MAX_GENRES = 1000
MAX_CARD, MAX_MODEL = 10**7, 2 * 10**9  # bytes


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
        """An ONNX Runtime session for model.onnx. Raises ModelError when it is invalid."""
        return self._create_session((self.path / MODEL).read_bytes())

    def _create_session(self, content: bytes, trial: bool = False) -> onnxruntime.InferenceSession:
        try:
            check_self_contained(content)
            return create_session(content, trial)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ModelError(f"{self.path / MODEL}: invalid graph ({error}); train or copy it again") from None

    def check(self, content: bytes) -> None:
        """Run the graph on windows of two lengths, within limits. Raises ModelError where it doesn't match the card."""
        import numpy as np  # not at the top, for the start of --help

        session = self._create_session(content, trial=True)
        sizes = {item.name: item.shape[-1] for item in (*session.get_inputs(), *session.get_outputs()) if item.shape}
        expected = {"windows": self.features.n_mels_kept, "probabilities": len(self.genres)}
        for name, size in expected.items():
            if sizes.get(name) != size:
                raise ModelError(
                    f"{self.path}: {name} of {MODEL} have size {sizes.get(name)}, those of {CARD} {size}; "
                    "copy both from one model"
                )
        n_frames = min(self.features.window_frames, math.ceil(self.features.frames_per_second))
        levels = np.linspace(0, self.features.top_db, self.features.n_mels_kept, dtype=np.float32)
        for n_windows, length in ((1, self.features.window_frames), (2, n_frames)):
            windows = np.broadcast_to(levels, (n_windows, length, len(levels)))
            self.run(functools.partial(run_limited, session), windows)

    def run(
        self, run_session: Callable[..., list[Any]], windows: Array, embeddings: Array | None = None
    ) -> tuple[Array, float, Array, Array]:
        """The OUTPUTS of model.onnx for log-mel windows (n_windows, n, n_mels_kept), by the `run` of its session.

        `embeddings` (n_windows, EMBEDDING_SIZE) are for models that use the tagger; None: all zeros. Raises ModelError
        when the graph fails, or its outputs have other shapes or aren't probabilities.
        """
        import numpy as np

        from musicclass.tagger import EMBEDDING_SIZE

        inputs = {"windows": windows}
        if self.uses_tagger:
            zeros = np.zeros((len(windows), EMBEDDING_SIZE), np.float32)
            inputs["embeddings"] = zeros if embeddings is None else embeddings
        try:
            outputs = run_session(list(OUTPUTS), inputs)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{self.path / MODEL}: fails ({reason}); train or copy it again") from None
        n_windows, n_genres = len(windows), len(self.genres)
        shapes = ((n_genres,), (), (n_windows, n_genres), (n_windows,))
        for name, output, shape in zip(OUTPUTS, outputs, shapes, strict=True):
            values = np.asarray(output)
            if values.shape != shape or values.dtype.kind != "f":
                raise ModelError(f"{self.path / MODEL}: {name} have shape {values.shape}, not {shape}; train it again")
            if not ((values >= -1e-3) & (values <= 1 + 1e-3)).all():  # false for NaN
                raise ModelError(f"{self.path / MODEL}: {name} aren't in [0, 1]; train or copy it again")
        return outputs[0], float(outputs[1]), outputs[2], outputs[3]

    def read_table(self, name: str) -> list[dict[str, str]]:
        """The rows of SPLIT, PREDICTIONS or HISTORY; an empty list if the file is missing. Raises ModelError."""
        path = self.path / name
        if not path.exists():
            return []
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            if name == HISTORY:
                _ = [float(value) for row in rows for value in row.values() if value]
        except (OSError, ValueError, TypeError, csv.Error) as error:  # TypeError: more values than columns
            raise ModelError(f"{path}: can't be read ({error}); copy it again") from None
        missing = [column for column in COLUMNS.get(name, ()) if any(row.get(column) is None for row in rows)]
        if missing:
            raise ModelError(f"{path}: a row has no {missing[0]}; copy it again")
        return rows


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

    Raises ModelError when files are missing or damaged, when model.onnx doesn't have the card's checksum, or when it
    fails on windows of the size in the card.
    """
    path = PRETRAINED / str(source) if str(source) in list_pretrained() else Path(source)
    try:
        text, content = _read(path / CARD, MAX_CARD).decode("utf-8-sig"), _read(path / MODEL, MAX_MODEL)
        card = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{path}: not a model ({error.filename} is missing); give a folder made by `musicclass train`, "
            f"or the name of a pretrained model: {', '.join(list_pretrained()) or 'none is installed'}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: can't be read ({error}); copy it again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{path / CARD}: not of format {FORMAT}; retrain the model, or update musicclass")
    try:
        _check_card(card)
        features = from_dict(FeatureConfig, card["config"]["features"], prefix="config.features.")
    except (ValueError, ConfigError) as error:
        raise ModelError(f"{path / CARD}: damaged ({error}); train or copy it again") from None
    if card["sha256"] != hashlib.sha256(content).hexdigest():
        raise ModelError(f"{path}: {MODEL} doesn't have the checksum in {CARD}; train or copy it again")
    model = SavedModel(path, tuple(card["genres"]), features, card)
    model.check(content)
    return model


def _read(path: Path, max_size: int) -> bytes:
    """The bytes of a file. Raises ValueError for pipes and devices, and for a file that is too large."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} isn't a file")
    if (size := path.stat().st_size) > max_size:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {max_size:,}")
    return path.read_bytes()


def _finite(text: str) -> float:
    """The number. Raises ValueError for NaN, Infinity and what is too large."""
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} isn't a finite number")
    return float(text)


def _check_card(card: dict[str, Any]) -> None:
    """Raise ValueError, with the field's name, where a field is missing, of another type, or out of bounds."""
    for name, kind in FIELDS.items():
        _field(card, name, kind)
    genres = card["genres"]
    for name, texts in (("name", [card["name"]]), ("summary", [card["summary"]]), ("genres", genres)):
        _check(all(isinstance(text, str) and not UNPRINTABLE.search(text) for text in texts), name, "printable text")
    _check(2 <= len(set(genres)) == len(genres) <= MAX_GENRES, "genres", "two or more distinct genres")
    _check(all(genre.strip() for genre in genres) and UNKNOWN not in genres, "genres", "names, none of them unknown")
    for subset in card["metrics"]:
        _check(subset in SUBSET_NAMES, f"metrics.{subset}", f"one of {', '.join(SUBSET_NAMES)}")
        _check_metrics(_field(card, f"metrics.{subset}", dict), genres, f"metrics.{subset}.")


def _check_metrics(metrics: dict[str, Any], genres: Sequence[str], prefix: str) -> None:
    """The same for the metrics of a subset, which needn't all be there."""
    for name in COUNTS:
        _check(_field(metrics, name, int, prefix) > 0, prefix + name, "above 0")
    for name, value in metrics.items():
        if name.endswith("_ci95"):
            _check(_has_shape(value, 2), prefix + name, "two numbers")
            _check(name.removesuffix("_ci95") in metrics, prefix + name, "the interval of a metric")
        elif isinstance(value, float):
            _check(0 <= value <= 1 or name == "log_loss", prefix + name, "in [0, 1]")
        elif not isinstance(value, list | dict):
            _check(isinstance(value, str if name == "note" else int), prefix + name, "a number")
    if "confusion_matrix" not in metrics:
        return
    _check(_has_shape(metrics["confusion_matrix"], len(genres), len(genres)), f"{prefix}confusion_matrix", "a square")
    for name, n_columns in (("reliability_bins", 3), ("risk_coverage_curve", 2)):
        rows = _field(metrics, name, list, prefix)
        _check(_has_shape(rows, len(rows), n_columns), prefix + name, f"rows of {n_columns} numbers")
    by_genre = _field(metrics, "genres", dict, prefix)
    _check(list(by_genre) == list(genres), f"{prefix}genres", "those of the model")
    for genre, scores in by_genre.items():
        _check(isinstance(scores, dict), f"{prefix}genres.{genre}", "an object")
        for name in ("precision", "recall", "f1"):
            _check(_has_shape(scores.get(name)), f"{prefix}genres.{genre}.{name}", "a number")
            _check(_has_shape(scores.get(f"{name}_ci95"), 2), f"{prefix}genres.{genre}.{name}_ci95", "two numbers")
        _check(isinstance(scores.get("n_tracks"), int), f"{prefix}genres.{genre}.n_tracks", "a number")


def _field(values: dict[str, Any], name: str, kind: type, prefix: str = "") -> Any:
    """The field with the name "a.b"."""
    value: Any = values
    for part in name.split("."):
        _check(isinstance(value, dict) and part in value, prefix + name, "there")
        value = value[part]
    _check(type(value) is kind, prefix + name, f"of type {kind.__name__}")
    return value


def _has_shape(value: Any, *shape: int) -> bool:
    """Whether it is a number, or nested lists of numbers with this shape."""
    if not shape:
        return type(value) in (int, float)
    return isinstance(value, list) and len(value) == shape[0] and all(_has_shape(item, *shape[1:]) for item in value)


def _check(condition: bool, name: str, wanted: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {wanted}")


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
    return load_model(path.resolve())
