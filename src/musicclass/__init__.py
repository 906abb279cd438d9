"""Music genre classification, per track and per segment.

from musicclass import Classifier
prediction = Classifier.load().predict("song.mp3")
print(prediction.genre, prediction.confidence)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from musicclass.config import AudioConfig, AugmentConfig, Config, FeatureConfig, ModelConfig, TrainConfig
from musicclass.errors import AudioError, ConfigError, DatasetError, LibraryError, ModelError, MusicClassError
from musicclass.prediction import Prediction, Segment

if TYPE_CHECKING:
    from musicclass.classifier import Classifier
    from musicclass.saved_model import SavedModel, load_model

__version__ = "0.1.0"
__all__ = [
    "AudioConfig", "AudioError", "AugmentConfig", "Classifier", "Config", "ConfigError", "DatasetError",
    "FeatureConfig", "LibraryError", "ModelConfig", "ModelError", "MusicClassError", "Prediction", "SavedModel",
    "Segment", "TrainConfig", "load_model",
]  # fmt: skip

# Before onnxruntime is imported: no device id and no usage reports. Releases differ in the variable they read.
for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")


def __getattr__(name: str) -> Any:
    """Import modules that need NumPy on first use, so that `import musicclass` and `--help` are light."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'musicclass' has no attribute {name!r}")
    return getattr(import_module("musicclass.classifier"), name)
