"""musicclass tells the genre of music.

    from musicclass import Classifier
    prediction = Classifier.load().predict("song.mp3")
    print(prediction.genre, prediction.confidence)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicclass.bundle import Bundle, load_bundle
    from musicclass.classifier import Classifier
    from musicclass.config import AudioConfig, Config, FeatureConfig, ModelConfig, TrainConfig
    from musicclass.errors import AudioError, BundleError, ConfigError, DatasetError, LibraryError, MusicClassError
    from musicclass.prediction import Prediction, Segment

__version__ = "0.1.0"

# onnxruntime keeps an id of the device and reports to its makers unless one of these says no before it loads (which
# one, depends on its release). What people listen to is nobody else's business.
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

_HOME = {
    "Bundle": "bundle",
    "load_bundle": "bundle",
    "Classifier": "classifier",
    "AudioConfig": "config",
    "Config": "config",
    "FeatureConfig": "config",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "AudioError": "errors",
    "BundleError": "errors",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "LibraryError": "errors",
    "MusicClassError": "errors",
    "Prediction": "prediction",
    "Segment": "prediction",
}
__all__ = [
    "AudioConfig", "AudioError", "Bundle", "BundleError", "Classifier", "Config", "ConfigError", "DatasetError",
    "FeatureConfig", "LibraryError", "ModelConfig", "MusicClassError", "Prediction", "Segment", "TrainConfig",
    "load_bundle",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'musicclass' has no attribute {name!r}")
    return getattr(importlib.import_module(f"musicclass.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
