"""Keras network -> ONNX bytes, with the recurrent layers as ONNX's own LSTM."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from musicclass.config import ModelConfig, from_dict, to_dict
from musicclass.errors import BundleError
from musicclass.features import Array
from musicclass.training.model import build_model

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
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in ((3, 100, n_mfcc), (1, 30, n_mfcc)):
        windows: Array = 100 * rng.standard_normal(shape, dtype=np.float32)  # as large as MFCCs are
        ours = keras.ops.convert_to_numpy(model(windows, training=False))
        theirs = session.run(None, {session.get_inputs()[0].name: windows})[0]
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
