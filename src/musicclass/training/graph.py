"""The exported graphs, as ONNX: what Python, workers, Ray and the browser run alike.

model.onnx     log-mel windows -> MFCCs -> network -> calibration, as classifier.TrackScores
frontend.onnx  samples -> log-mel frames and windows, for the browser, as features.py and windows.py compute them
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from musicclass.config import FeatureConfig
from musicclass.features import POWER_FLOOR, dct_matrix, hann_window, mel_filterbank
from musicclass.tagger import EMBEDDING_SIZE, SHORTEST
from musicclass.training import ood
from musicclass.training.calibration import Calibrator
from musicclass.training.cross_validation import Calibration
from musicclass.training.linear import Linear
from musicclass.training.tagger_head import EXPERT_SHARE, EXPERT_SLOPE, TaggerHead

BATCH = 32  # windows that the network takes at once; bounds the memory of long tracks
MODEL_OPSET, FRONTEND_OPSET = 15, 17  # that of Keras's export; the first one that has STFT
IR_VERSION = 8


class _Graph:
    """Nodes and constants, added one by one; each call returns the name of its result."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def constant(self, value: npt.ArrayLike, dtype: Any = None) -> str:
        name = f"{self._prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def __call__(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{self._prefix}{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def build(self, name: str, inputs: Iterable[Any], outputs: Iterable[Any]) -> Any:
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializer=self.constants)


def _value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def build_model(
    network: bytes, calibration: Calibration, head: TaggerHead | None, features: FeatureConfig, genres: Sequence[str]
) -> bytes:
    """model.onnx, from a `network` (MFCC windows -> the weighted sum of its branches' logits) and its calibration.

    Inputs: windows (n_windows, n_frames, n_mels_kept), float32, all zeros where silent; with a tagger `head`,
    embeddings (n_windows, EMBEDDING_SIZE). Where all of these are zeros, the network alone determines the outputs.
    Outputs: probabilities (n_genres,), familiarity (), window_probabilities (n_windows, n_genres), window_familiarity
    (n_windows,); the last two are zeros for silent windows.
    """
    n_genres = len(genres)
    g = _Graph("m_")
    loud = g("ReduceMax", "windows", axes=[1, 2], keepdims=0)
    mask = g("Cast", g("Greater", loud, g.constant(0, np.float32)), to=TensorProto.DOUBLE)
    weights = g("Unsqueeze", g("Div", mask, _at_least_one(g, g("ReduceSum", mask, g.ints(0), keepdims=1))), g.ints(1))
    logits = g("Cast", _logits(g, network, features, n_genres), to=TensorProto.DOUBLE)
    distance = _feature_distance(g, calibration.calibrator.feature_ood, features)
    inputs = [_value("windows", TensorProto.FLOAT, "n_windows", "n_frames", features.n_mels_kept)]
    if head is None:
        scores = _scores(g, logits, distance, None, weights, calibration.calibrator)
    else:
        assert calibration.first_branch is not None
        inputs.append(_value("embeddings", TensorProto.FLOAT, "n_windows", EMBEDDING_SIZE))
        embeddings = g("Cast", "embeddings", to=TensorProto.DOUBLE)
        tagger = g("Mul", _tagger_logits(g, embeddings, head), g.constant([calibration.weights["tagger"]]))
        together = _scores(g, g("Add", logits, tagger), distance, embeddings, weights, calibration.calibrator)
        alone = _scores(g, logits, distance, None, weights, calibration.first_branch)
        largest = g("ReduceMax", g("Abs", embeddings), axes=[0, 1], keepdims=0)
        available = g("Greater", largest, g.constant(0.0))
        scores = [g("Where", available, *pair) for pair in zip(together, alone, strict=True)]
    probabilities, familiarity = (g("Squeeze", score, g.ints(0)) for score in scores[:2])
    by_window = g("Mul", scores[2], g("Unsqueeze", mask, g.ints(1)))
    familiarity_by_window = g("Mul", scores[3], mask)
    outputs = {
        "probabilities": (probabilities, (n_genres,)),
        "familiarity": (familiarity, ()),
        "window_probabilities": (by_window, ("n_windows", n_genres)),
        "window_familiarity": (familiarity_by_window, ("n_windows",)),
    }
    for name, (value, _) in outputs.items():
        g("Cast", value, to=TensorProto.FLOAT, name=name)
    graph = g.build("model", inputs, [_value(n, TensorProto.FLOAT, *shape) for n, (_, shape) in outputs.items()])
    return _serialize(graph, MODEL_OPSET)


def _at_least_one(g: _Graph, count: str) -> str:
    return g("Max", count, g.constant([1.0]))


def _scores(
    g: _Graph, logits: str, distance: str, embeddings: str | None, weights: str, calibrator: Calibrator
) -> list[str]:
    """As Calibrator.score: probabilities (1, n_genres), familiarity (1,), and both of each window.

    `weights` (n_windows, 1) are those of the windows in means.
    """
    column = g("Unsqueeze", distance, g.ints(1))
    mean, mean_distance = _weighted_mean(g, logits, weights), _weighted_mean(g, column, weights)
    mean_distance = g("Squeeze", mean_distance, g.ints(1))
    embedding_distance = None
    if embeddings and calibrator.embedding_ood:
        scorer, mean_embedding = calibrator.embedding_ood, _weighted_mean(g, embeddings, weights)
        unit = _unit_length(g, mean_embedding, np.float64)
        embedding_distance = _nearest(g, unit, scorer.means, scorer.precision)
    thresholds = (
        (calibrator.logit_ood.threshold, calibrator.logit_ood.window_threshold) if calibrator.logit_ood else (0, 0)
    )
    return [
        _softmax(g, mean, calibrator),
        _familiarity(g, mean, mean_distance, embedding_distance, calibrator.logit_ood, thresholds[0]),
        _softmax(g, logits, calibrator),
        _familiarity(g, logits, distance, embedding_distance, calibrator.logit_ood, thresholds[1]),
    ]


def _weighted_mean(g: _Graph, values: str, weights: str) -> str:
    """The mean (1, n) of values (n_windows, n)."""
    return g("ReduceSum", g("Mul", values, weights), g.ints(0), keepdims=1)


def _tagger_logits(g: _Graph, embeddings: str, head: TaggerHead) -> str:
    """As TaggerHead.logits, but for embeddings that are all zeros."""
    general = g("LogSoftmax", _linear(g, embeddings, head.general), axis=1)
    if head.expert is None or head.gate is None or head.expert_genres is None:
        return general
    odds = g("Sigmoid", _linear(g, embeddings, head.gate))
    centred = g("Mul", g("Sub", odds, g.constant([0.5])), g.constant([EXPERT_SLOPE]))
    share = g("Clip", g("Add", centred, g.constant([EXPERT_SHARE])), g.constant(0.0), g.constant(1.0))
    n_genres = len(head.general.intercepts)
    selection = np.eye(n_genres)[:, head.expert_genres]  # (n_genres, n_expert_genres)
    own = g("MatMul", general, g.constant(selection))
    total = g("ReduceLogSumExp", own, axes=[1], keepdims=1)
    divided = g("Add", g("LogSoftmax", _linear(g, embeddings, head.expert), axis=1), total)
    change = g("Mul", share, g("Sub", divided, own))
    return g("Add", general, g("MatMul", change, g.constant(selection.T)))


def _linear(g: _Graph, values: str, linear: Linear) -> str:
    return g("Add", g("MatMul", values, g.constant(linear.coefficients)), g.constant(linear.intercepts))


def _logits(g: _Graph, network: bytes, features: FeatureConfig, n_genres: int) -> str:
    """The network on BATCH windows at a time: a Loop, whose rounds append their logits."""
    inner = onnx.load_model_from_string(network).graph
    body = _Graph("b_")
    start = body("Mul", body("Reshape", "b_round", body.ints(1)), body.ints(BATCH))
    chunk = body("Slice", "windows", start, body("Add", start, body.ints(BATCH)), body.ints(0))
    dct = body.constant(dct_matrix(features.n_mels_kept, features.n_mfcc))
    body("MatMul", chunk, dct, name=inner.input[0].name)
    body.nodes += inner.node
    body.constants += inner.initializer
    body("Concat", "b_logits_in", inner.output[0].name, axis=0, name="b_logits")
    body("Identity", "b_go_in", name="b_go")
    loop_body = body.build(
        "batch",
        [
            _value("b_round", TensorProto.INT64),
            _value("b_go_in", TensorProto.BOOL),
            _value("b_logits_in", TensorProto.FLOAT, "n_before", n_genres),
        ],
        [_value("b_go", TensorProto.BOOL), _value("b_logits", TensorProto.FLOAT, "n_after", n_genres)],
    )
    n_windows = g("Gather", g("Shape", "windows"), g.constant(0, np.int64), axis=0)
    padded = g("Add", n_windows, g.constant(BATCH - 1, np.int64))
    rounds = g("Div", padded, g.constant(BATCH, np.int64))
    return g("Loop", rounds, g.constant(True), g.constant(np.zeros((0, n_genres)), np.float32), body=loop_body)


def _softmax(g: _Graph, logits: str, calibrator: Calibrator) -> str:
    scaled = g("Div", logits, g.constant([calibrator.temperature], np.float64))
    return g("Softmax", g("Add", scaled, g.constant(calibrator.biases, np.float64)), axis=-1)


def _feature_distance(g: _Graph, scorer: ood.FeatureOodScorer, features: FeatureConfig) -> str:
    """As FeatureOodScorer.distance."""
    dct = dct_matrix(features.n_mels_kept, features.n_mfcc)[:, : ood.N_MFCC]
    low = g("Cast", g("MatMul", "windows", g.constant(dct)), to=TensorProto.DOUBLE)
    later = g("Slice", low, g.ints(1), g.ints(2**62), g.ints(1))
    earlier = g("Slice", low, g.ints(0), g.ints(-1), g.ints(1))
    parts = [g("ReduceMean", low, axes=[1], keepdims=0), _log_std(g, low), _log_std(g, g("Sub", later, earlier))]
    offset = g("Sub", g("Concat", *parts, axis=1), g.constant(scorer.mean, np.float64))
    return _quadratic(g, offset, scorer.precision / scorer.scale)


def _log_std(g: _Graph, values: str) -> str:
    centred = g("Sub", values, g("ReduceMean", values, axes=[1], keepdims=1))
    std = g("Sqrt", g("ReduceMean", g("Mul", centred, centred), axes=[1], keepdims=0))
    return g("Log", g("Add", std, g.constant([ood.STD_OFFSET], np.float64)))


def _quadratic(g: _Graph, offsets: str, matrix: npt.NDArray[np.float64]) -> str:
    """x' M x of offsets (..., n): (...)."""
    product = g("Mul", g("MatMul", offsets, g.constant(matrix, np.float64)), offsets)
    return g("ReduceSum", product, g.ints(-1), keepdims=0)


def _familiarity(
    g: _Graph,
    logits: str,
    distance: str,
    embedding_distance: str | None,
    scorer: ood.LogitOodScorer | None,
    threshold: float,
) -> str:
    """As LogitOodScorer.familiarity, or distance_to_familiarity."""
    if scorer is None:
        power = g("Pow", distance, g.constant([ood.DISTANCE_EXPONENT], np.float64))
        return g("Reciprocal", g("Add", power, g.constant([1.0])))
    weight = g.constant([ood.INPUT_DISTANCE_WEIGHT], np.float64)
    score = g("Sub", _relative_distance(g, logits, scorer), g("Mul", g("Mul", distance, distance), weight))
    if embedding_distance:
        score = g("Sub", score, g("Mul", embedding_distance, g.constant([ood.EMBEDDING_WEIGHT], np.float64)))
    above = g("Sub", score, g.constant([threshold], np.float64))
    return g("Sigmoid", g("Mul", above, g.constant([ood.OOD_LOGISTIC_SLOPE], np.float64)))


def _relative_distance(g: _Graph, values: str, scorer: ood.LogitOodScorer) -> str:
    """As LogitOodScorer.relative_distance."""
    nearest = _nearest(g, values, scorer.means, scorer.within_precision)
    to_all = g("Sub", values, g.constant(scorer.mean, np.float64))
    return g("Sub", _quadratic(g, to_all, scorer.total_precision), nearest)


def _unit_length(g: _Graph, vectors: str, dtype: npt.DTypeLike = np.float32) -> str:
    """As tagger.unit_length."""
    length = g("ReduceL2", vectors, axes=[1], keepdims=1)
    return g("Div", vectors, g("Max", length, g.constant([SHORTEST], dtype)))


def _nearest(g: _Graph, values: str, means: ood.Floats, precision: ood.Floats) -> str:
    """As nearest_distance."""
    offsets = g("Sub", g("Unsqueeze", values, g.ints(1)), g.constant(means, np.float64))
    return g("ReduceMin", _quadratic(g, offsets, precision), axes=[1], keepdims=0)


def build_frontend(features: FeatureConfig) -> bytes:
    """frontend.onnx: samples (n_samples,) at `features.sample_rate` -> windows and what a page draws.

    Outputs: log_mel (n_frames, n_mels_kept) in dB; windows (n_windows, n, n_mels_kept), as model.onnx takes them;
    starts (n_windows,), their first frames; means (n_windows,), what occluded cells are set to.
    """
    g = _Graph("f_")
    _log_mel(g, features)
    frame_max, frame_min = (g(op, "log_mel", axes=[1], keepdims=0) for op in ("ReduceMax", "ReduceMin"))
    n_frames = g("Shape", frame_max)
    _window_starts(g, n_frames, features)
    window, context = g.ints(features.window_frames), g.ints(features.norm_frames)
    length = g("Min", n_frames, window)
    shift = g("Floor", g("Mul", g("Cast", g("Sub", length, context), to=TensorProto.DOUBLE), g.constant([0.5])))
    first = g("Add", "starts", g("Cast", shift, to=TensorProto.INT64))
    last_first = g("Max", g("Sub", n_frames, context), g.ints(0))
    first = g("Max", g("Min", first, last_first), g.ints(0))
    around = g("Add", g("Unsqueeze", first, g.ints(1)), _range(g, g("Min", n_frames, context)))
    maximum = g("ReduceMax", g("Gather", frame_max, around), axes=[1], keepdims=0)
    minimum = g("ReduceMin", g("Gather", frame_min, around), axes=[1], keepdims=0)
    frames = g("Gather", "log_mel", g("Add", g("Unsqueeze", "starts", g.ints(1)), _range(g, length)), axis=0)
    floor = g("Sub", maximum, g.constant([features.top_db], np.float32))
    above = g("Relu", g("Sub", frames, g("Unsqueeze", floor, g.ints(1, 2))))
    ptp = g("Sub", g("ReduceMax", above, axes=[1, 2], keepdims=0), g("ReduceMin", above, axes=[1, 2], keepdims=0))
    sounds = g("And", g("Greater", ptp, g.constant([0], np.float32)), g("Greater", maximum, minimum))
    mask = g("Unsqueeze", g("Cast", sounds, to=TensorProto.FLOAT), g.ints(1, 2))
    g("Mul", above, mask, name="windows")
    g("ReduceMean", "windows", axes=[1, 2], keepdims=0, name="means")
    bands = features.n_mels_kept
    graph = g.build(
        "frontend",
        [_value("samples", TensorProto.FLOAT, "n_samples")],
        [
            _value("log_mel", TensorProto.FLOAT, "n_frames", bands),
            _value("windows", TensorProto.FLOAT, "n_windows", "n", bands),
            _value("starts", TensorProto.INT64, "n_windows"),
            _value("means", TensorProto.FLOAT, "n_windows"),
        ],
    )
    return _serialize(graph, FRONTEND_OPSET)


def _log_mel(g: _Graph, features: FeatureConfig) -> None:
    half = features.n_fft // 2
    padded = g("Pad", "samples", g.ints(half, half))
    signal = g("Unsqueeze", padded, g.ints(0, 2))
    step, hann = g.constant(features.hop_length, np.int64), g.constant(hann_window(features.n_fft))
    spectrum = g("STFT", signal, step, hann, g.constant(features.n_fft, np.int64))
    power = g("Squeeze", g("ReduceSum", g("Mul", spectrum, spectrum), g.ints(3), keepdims=0), g.ints(0))
    mel = g("MatMul", power, g.constant(mel_filterbank(features).T))
    log = g("Log", g("Max", mel, g.constant(POWER_FLOOR, np.float32)))
    g("Mul", log, g.constant(10 / np.log(10), np.float32), name="log_mel")


def _window_starts(g: _Graph, n_frames: str, features: FeatureConfig) -> None:
    """As windows.window_starts: round(i * spare / (count - 1))."""
    frames = g("Cast", n_frames, to=TensorProto.DOUBLE)
    window = g.constant([features.window_frames], np.float64)
    count = g("Ceil", g("Div", frames, window))
    spare = g("Max", g("Sub", frames, window), g.constant([0.0]))
    i = g("Cast", _range(g, g("Cast", count, to=TensorProto.INT64)), to=TensorProto.DOUBLE)
    gaps = g("Max", g("Sub", count, g.constant([1.0])), g.constant([1.0]))
    g("Cast", g("Round", g("Div", g("Mul", i, spare), gaps)), to=TensorProto.INT64, name="starts")


def _range(g: _Graph, count: str) -> str:
    """0 to count - 1, for a count of shape (1,)."""
    return g("Range", g.constant(0, np.int64), g("Squeeze", count, g.ints(0)), g.constant(1, np.int64))


def _serialize(graph: Any, opset: int) -> bytes:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized
