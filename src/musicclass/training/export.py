"""Keras network -> ONNX, and its quantization to int8."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import keras
import numpy as np
from scipy.special import softmax

from musicclass.errors import ModelError
from musicclass.features import Array
from musicclass.onnx_session import create_session
from musicclass.training import lda  # noqa: F401  # registers its layers, for keras.saving.load_model

MAX_QUANTIZATION_GAP = 2e-3  # mean change of a probability
TOLERANCE = 1e-5  # relative to the largest logit, if that is above 1
CALIBRATION_BATCH = 16  # windows


def to_onnx(model: keras.Model, output: str = "logits") -> bytes:
    """A network as ONNX, whose input may have any number of windows and frames, and whose output has that name.

    Only Keras on TensorFlow exports LSTMs as ONNX's own; with another backend, a second process does it. Raises
    ModelError when the outputs differ from Keras's.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "network.onnx"
        if keras.backend.backend() == "tensorflow":
            _export(model, target)
        else:
            model.save(target.with_suffix(".keras"))
            command = [
                sys.executable,
                "-m",
                "musicclass.training.export",
                str(target.with_suffix(".keras")),
                str(target),
            ]
            environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise ModelError(f"the export under TensorFlow failed:\n{done.stderr.strip()[-2000:]}")
        exported = _name_output(target.read_bytes(), output)
    _compare(model, exported)
    return exported


def quantize_int8(network: bytes, windows: Array) -> bytes:
    """The network with int8 convolutions (static, per channel): about twice as fast, and two thirds of the size.

    The ranges of activations come from `windows` (n_windows, n_frames, n_mfcc). The first convolution, which has one
    input channel, gains nothing and stays float. Weights have 7 bits, because 8 overflow on processors without VNNI.
    Raises ModelError when the probabilities of these windows change by more than MAX_QUANTIZATION_GAP on average.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        batches = iter(np.array_split(windows, max(1, len(windows) // CALIBRATION_BATCH)))

        def get_next(self) -> dict[str, Array] | None:
            return next(({"mfcc": batch} for batch in self.batches), None)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        logging.disable(logging.WARNING)  # onnxruntime's quantization logs advice on the root logger
        stack.callback(logging.disable, logging.NOTSET)
        original, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("original", "prepared", "int8"))
        original.write_bytes(network)
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        channels = {item.name: item.dims[1] for item in graph.initializer if len(item.dims) == 4}
        first = [node.name for node in graph.node if node.op_type == "Conv" and channels[node.input[1]] == 1]
        quantize_static(
            prepared, target, Batches(),
            op_types_to_quantize=["Conv"], nodes_to_exclude=first, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        quantized = target.read_bytes()
    before, after = (softmax(onnx_predict_fn(content)(windows), axis=-1) for content in (network, quantized))
    gap = float(np.abs(before - after).mean())
    if gap > MAX_QUANTIZATION_GAP:
        raise ModelError(
            f"quantization to int8 changes probabilities by {gap:.4f} on average; train with training.quantize=false"
        )
    return quantized


def onnx_predict_fn(network: bytes) -> Callable[[Array], Array]:
    """An ONNX network as a function, MFCC windows -> logits."""
    session = create_session(network)
    return lambda windows: cast(Array, session.run(None, {"mfcc": windows})[0])


def _export(model: keras.Model, target: Path) -> None:
    model(np.zeros((1, 32, model.input_shape[-1]), np.float32))  # Keras exports only models that have been called
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        model.export(str(target), format="onnx", verbose=False)


def _name_output(network: bytes, name: str) -> bytes:
    import onnx

    model = onnx.load_model_from_string(network)
    model.graph.node.append(onnx.helper.make_node("Identity", [model.graph.output[0].name], [name]))
    model.graph.output[0].name = name
    renamed: bytes = model.SerializeToString()
    return renamed


def _compare(model: keras.Model, exported: bytes) -> None:
    predict, n_mfcc = onnx_predict_fn(exported), model.input_shape[-1]
    rng = np.random.default_rng(0)
    for shape in ((3, 100, n_mfcc), (1, 30, n_mfcc)):
        windows: Array = 100 * rng.standard_normal(shape, dtype=np.float32)  # the range of MFCCs
        expected = keras.ops.convert_to_numpy(model(windows, training=False))
        gap = float(np.abs(expected - predict(windows)).max() / max(1.0, np.abs(expected).max()))
        if gap > TOLERANCE:
            raise ModelError(f"the exported network differs from the trained one by {gap:.1e} for windows {shape}")


if __name__ == "__main__":
    _export(keras.saving.load_model(sys.argv[1]), Path(sys.argv[2]))
