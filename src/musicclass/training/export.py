"""Keras network -> ONNX bytes, with the recurrent layers as ONNX's own LSTM."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from musicclass.bundle import open_network
from musicclass.confidence import softmax
from musicclass.config import ModelConfig, from_dict, to_dict
from musicclass.errors import BundleError
from musicclass.features import Array
from musicclass.training.model import build_model

QUANTIZED = 2e-3  # mean change of a probability that whole numbers may make
TOLERANCE = 1e-5  # relative to the largest logit, if that is above 1


def to_onnx(model: keras.Model, config: ModelConfig, n_mfcc: int, n_genres: int) -> bytes:
    """The network as ONNX: any number of windows, of any length.

    Only Keras on TensorFlow can export LSTMs, so from another backend a second process does it.
    Raises BundleError when the two networks disagree.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        if keras.backend.backend() == "tensorflow":
            _export(model, target)
        else:
            _export_elsewhere(model, config, n_mfcc, n_genres, target)
        exported = target.read_bytes()
    _compare(model, exported, n_mfcc)
    return exported


def to_int8(network: bytes, windows: Array) -> bytes:
    """The same network, whose convolutions count in whole numbers of 8 bits: about twice as fast, two thirds as large.

    Their ranges are those that `windows` (n_windows, n_frames, n_mfcc) show. The first convolution, which has one
    channel, gains nothing and stays as it is; weights get 7 bits, as processors without VNNI overflow with 8. Raises
    BundleError when the answers to these windows change by more than QUANTIZED in the mean.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

    class Windows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.batches = iter(np.array_split(windows, max(1, len(windows) // 16)))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.batches, None)
            return None if batch is None else {graph.input[0].name: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        given.write_bytes(network)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        channels = {weights.name: weights.dims[1] for weights in graph.initializer if len(weights.dims) == 4}
        first = [node.name for node in graph.node if node.op_type == "Conv" and channels[node.input[1]] == 1]
        quantize_static(
            prepared,
            made,
            Windows(),
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=first,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = made.read_bytes()
    before, after = (softmax(runner(content)(windows)) for content in (network, quantized))
    gap = float(np.abs(before - after).mean())
    if gap > QUANTIZED:
        raise BundleError(f"in whole numbers, the network's probabilities change by {gap:.4f} on average")
    return quantized


def runner(network: bytes) -> Callable[[Array], Array]:
    """An ONNX network as a function, MFCC windows -> logits."""
    session = open_network(network)
    name = session.get_inputs()[0].name

    def run(windows: Array) -> Array:
        logits: Array = session.run(None, {name: windows})[0]
        return logits

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantization advises on the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _export(model: keras.Model, target: Path) -> None:
    model(np.zeros((1, 32, model.input_shape[-1]), np.float32))  # Keras exports only what was called once
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        model.export(str(target), format="onnx", verbose=False)


def _export_elsewhere(model: keras.Model, config: ModelConfig, n_mfcc: int, n_genres: int, target: Path) -> None:
    order = json.dumps({"model": to_dict(config), "n_mfcc": n_mfcc, "n_genres": n_genres})
    weights = target.with_suffix(".npz")
    np.savez(weights, *model.get_weights(), order=order)
    command = [sys.executable, "-m", "musicclass.training.export", str(weights), str(target)]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, capture_output=True, text=True)
    if done.returncode:
        raise BundleError(f"the export under TensorFlow failed:\n{done.stderr.strip()[-2000:]}")


def _compare(model: keras.Model, exported: bytes, n_mfcc: int) -> None:
    exported_network = runner(exported)
    rng = np.random.default_rng(0)
    for shape in ((3, 100, n_mfcc), (1, 30, n_mfcc)):
        windows: Array = 100 * rng.standard_normal(shape, dtype=np.float32)  # as large as MFCCs are
        ours = keras.ops.convert_to_numpy(model(windows, training=False))
        theirs = exported_network(windows)
        gap = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
        if gap > TOLERANCE:
            raise BundleError(f"the exported network differs from the trained one by {gap:.1e} on {shape}")


def main() -> None:
    """Export the weights and description in argv[1] (.npz) to argv[2]; runs under TensorFlow."""
    with np.load(sys.argv[1], allow_pickle=False) as file:
        order = json.loads(str(file["order"]))
        weights = [file[f"arr_{i}"] for i in range(len(file.files) - 1)]
    model = build_model(from_dict(ModelConfig, order["model"]), order["n_mfcc"], order["n_genres"])
    model.set_weights(weights)
    _export(model, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
