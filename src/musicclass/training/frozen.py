"""The frozen branch: logistic regression on the features of a trained CNN-LSTM, whose weights don't change.

It needs scikit-learn and ONNX alone, and few clips.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from musicclass import saved_model
from musicclass.config import Config
from musicclass.errors import ConfigError, ModelError
from musicclass.features import Array
from musicclass.onnx_session import create_session
from musicclass.saved_model import BACKBONE, BASE_MODEL, load_model
from musicclass.training.linear import Linear, fit_linear
from musicclass.training.tracks import LabelledTracks, WindowedTracks


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """MFCC windows -> features of the backbone -> logits."""

    backbone: bytes = field(repr=False)  # ONNX
    linear: Linear
    c: float  # the inverse penalty that it was fitted with

    def predict_on_batch(self, windows: Array) -> Array:
        """Logits (n_windows, n_genres) of MFCC windows (n_windows, n_frames, n_mfcc)."""
        return self.linear(_features(self.backbone, windows)).astype(np.float32)

    def to_onnx(self, weight: float) -> bytes:
        """The network, with its logits multiplied by `weight`, as ONNX."""
        model = onnx.load_model_from_string(self.backbone)
        values = {"frozen_w": self.linear.coefficients, "frozen_b": self.linear.intercepts}
        for name, value in values.items():
            model.graph.initializer.append(numpy_helper.from_array((weight * value).astype(np.float32), name))
        model.graph.node.append(helper.make_node("Gemm", [model.graph.output[0].name, *values], ["frozen_logits"]))
        shape: list[str | int | None] = ["n_windows", len(self.linear.intercepts)]
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("frozen_logits", onnx.TensorProto.FLOAT, shape))
        exported: bytes = model.SerializeToString()
        return exported

    def count_params(self) -> int:
        """The number of parameters, those of the backbone included."""
        initializers = onnx.load_model_from_string(self.backbone).graph.initializer
        own = self.linear.coefficients.size + self.linear.intercepts.size
        return own + sum(int(np.prod(item.dims)) for item in initializers if item.data_type == onnx.TensorProto.FLOAT)


def fit_frozen(tracks: LabelledTracks, config: Config) -> FrozenNetwork:
    """Fit to the mean features of each track.

    Raises ModelError without the backbone, ConfigError when the settings of features aren't those of BASE_MODEL.
    """
    path = saved_model.PRETRAINED / BASE_MODEL / BACKBONE
    if not path.exists():
        raise ModelError(
            f"{path} is missing, on which a frozen CNN-LSTM is based; install the pretrained model {BASE_MODEL}, "
            "or train with --config default"
        )
    base = load_model(BASE_MODEL)
    if base.features != config.features:
        raise ConfigError(f"a frozen CNN-LSTM needs the [features] of {BASE_MODEL}; don't set others")
    backbone = path.read_bytes()
    by_window = WindowedTracks.of(tracks, config.features).predict(lambda windows: _features(backbone, windows))
    return FrozenNetwork(backbone, *fit_linear(np.stack([x.mean(axis=0) for x in by_window]), tracks, config))


def _features(backbone: bytes, windows: Array) -> Array:
    return cast(Array, _session(backbone).run(None, {"mfcc": windows})[0])


@functools.lru_cache(maxsize=1)
def _session(backbone: bytes) -> onnxruntime.InferenceSession:
    return create_session(backbone)
