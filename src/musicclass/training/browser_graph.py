"""The tagger's part of what the browser runs, as ONNX: patches of a track, and what is made of the tagger's outputs.

frontend.onnx  also gives patches, scaled as tagger.embed scales them, and their weights in the windows' embeddings
pooling.onnx   the tagger's outputs -> embeddings of windows and characteristic tags
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from musicclass import tagger
from musicclass.config import FeatureConfig
from musicclass.training.graph import FRONTEND_OPSET, _Graph, _range, _serialize, _unit_length, _value, build_frontend
from musicclass.windows import NEAREST

MAX_DOUBLINGS = 20  # of the stride: 600 days of audio
HELD = 2 * tagger.MAX_PATCHES - 1  # patches that a PatchSampler holds at most


def build_browser_graphs(features: FeatureConfig, uses_tagger: bool) -> tuple[bytes, bytes]:
    """frontend.onnx and pooling.onnx; the latter is empty for models that don't use the tagger."""
    return (build_tagger_frontend(features), build_pooling()) if uses_tagger else (build_frontend(features), b"")


def build_tagger_frontend(features: FeatureConfig) -> bytes:
    """`build_frontend` for models that use the tagger, with two more outputs.

    patches (n_patches, PATCH_SAMPLES), float32, at least one, as tagger.onnx takes them;
    patch_weights (n_windows, n_patches), float32: embeddings of windows are patch_weights @ normalized embeddings, as
    windows.window_embeddings computes them. All weights are 0 where all patches are silent.
    """
    g = _Graph("p_")
    n_samples = g("Shape", "samples")
    indices = _indices(g, n_samples)
    starts = g("Mul", indices, g.ints(tagger.PATCH_SAMPLES))
    positions = g("Add", g("Unsqueeze", starts, g.ints(1)), _range(g, g.ints(tagger.PATCH_SAMPLES)))
    kept, starts, audible = _without_silence(g, g("Gather", "samples", g("Mod", positions, n_samples)), starts)
    g("Identity", kept, name="patches")
    weights = _patch_weights(g, n_samples, starts)
    g("Mul", g("Cast", weights, to=TensorProto.FLOAT), audible, name="patch_weights")
    model = onnx.load_model_from_string(build_frontend(features))
    model.graph.node.extend(g.nodes)
    model.graph.initializer.extend(g.constants)
    model.graph.output.extend(
        [
            _value("patches", TensorProto.FLOAT, "n_patches", tagger.PATCH_SAMPLES),
            _value("patch_weights", TensorProto.FLOAT, "n_windows", "n_patches"),
        ]
    )
    return _serialize(model.graph, FRONTEND_OPSET)


def _indices(g: _Graph, n_samples: str) -> str:
    """The patches (n,) that PatchSampler.patches chooses; of audio shorter than a patch, the first."""
    n_patches = g("Max", g("Div", n_samples, g.ints(tagger.PATCH_SAMPLES)), g.ints(1))
    limits = [HELD * 2**k for k in range(MAX_DOUBLINGS)]
    doublings = g("ReduceSum", g("Cast", g("Greater", n_patches, g.ints(*limits)), to=TensorProto.INT64), g.ints(0))
    stride = g("Gather", g.ints(*(2**k for k in range(MAX_DOUBLINGS + 1))), doublings)
    held = g("Div", g("Sub", g("Add", n_patches, stride), g.ints(1)), stride)
    count = g("Min", held, g.ints(tagger.MAX_PATCHES))
    last, gaps = (g("Cast", g("Sub", n, g.ints(1)), to=TensorProto.DOUBLE) for n in (held, count))
    step = g("Div", last, g("Max", gaps, g.constant([1.0])))
    chosen = g("Round", g("Mul", g("Cast", _range(g, count), to=TensorProto.DOUBLE), step))
    return g("Mul", g("Cast", chosen, to=TensorProto.INT64), stride)


def _without_silence(g: _Graph, patches: str, starts: str) -> tuple[str, str, str]:
    """Patches and starts without the silent ones, scaled; and 1, or 0 where all are silent, which are then kept."""
    wide = g("Cast", patches, to=TensorProto.DOUBLE)
    power = g("ReduceMean", g("Mul", wide, wide), axes=[1], keepdims=0)
    rms = g("Sqrt", power)
    loudest = g("ReduceMax", rms, axes=[0], keepdims=1)
    audible = g("Greater", loudest, g.constant([0.0]))
    sounds = g("Or", g("Greater", rms, g("Mul", loudest, g.constant([tagger.SILENT_RATIO]))), g("Not", audible))
    mean_power = g("ReduceMean", g("Compress", power, sounds, axis=0), axes=[0], keepdims=1)
    divisor = g("Max", g("Sqrt", mean_power), g.constant([math.sqrt(np.finfo(np.float32).tiny)]))
    gain = g("Cast", g("Div", g.constant([10 ** (tagger.LOUDNESS / 20)]), divisor), to=TensorProto.FLOAT)
    kept = g("Mul", g("Compress", patches, sounds, axis=0), gain)
    return kept, g("Compress", starts, sounds, axis=0), g("Cast", audible, to=TensorProto.FLOAT)


def _patch_weights(g: _Graph, n_samples: str, starts: str) -> str:
    """As windows.window_embeddings, (n_windows, n_patches)."""
    n_windows, rate = g("Shape", "starts"), g.constant([tagger.SAMPLE_RATE], np.float64)
    half = g.constant([tagger.PATCH_SAMPLES / 2])
    centers = g("Div", g("Add", g("Cast", starts, to=TensorProto.DOUBLE), half), rate)
    duration = g("Div", g("Cast", n_samples, to=TensorProto.DOUBLE), rate)
    seconds = g("Div", duration, g("Cast", n_windows, to=TensorProto.DOUBLE))
    window = g("Unsqueeze", g("Cast", _range(g, n_windows), to=TensorProto.DOUBLE), g.ints(1))
    middle = g("Mul", g("Add", window, g.constant([0.5])), seconds)
    closeness = g("Neg", g("Abs", g("Sub", middle, centers)))
    n_patches = g("Shape", centers)
    n_nearest = g("Min", g.ints(NEAREST), n_patches)
    nearest = f"{window}_nearest"
    g.nodes.append(onnx.helper.make_node("TopK", [closeness, n_nearest], [f"{window}_closeness", nearest]))
    members = g("Equal", g("Unsqueeze", nearest, g.ints(2)), _range(g, n_patches))  # (n_windows, n_nearest, n_patches)
    return g("ReduceMean", g("Cast", members, to=TensorProto.DOUBLE), axes=[1], keepdims=0)


def build_pooling() -> bytes:
    """pooling.onnx: patch_weights of the front end, embeddings and tag_logits of the tagger -> what a result needs.

    Outputs: window_embeddings (n_windows, EMBEDDING_SIZE), as model.onnx takes them; tags (k,), indices into
    tagger.TAGS, and tag_probabilities (k,), as tagger.characteristic_tags. k is 0 where all patches are silent.
    """
    g = _Graph()
    mean, std = (g.constant(values, np.float32) for values in tagger.tag_statistics())
    normalized = _unit_length(g, g("Mul", g("Sign", "embeddings"), g("Sqrt", g("Abs", "embeddings"))))
    g("Identity", _unit_length(g, g("MatMul", "patch_weights", normalized)), name="window_embeddings")
    logits = g("ReduceMean", "tag_logits", axes=[0], keepdims=0)
    z_scores, indices = "z_scores", "indices"
    g.nodes.append(
        onnx.helper.make_node(
            "TopK", [g("Div", g("Sub", logits, mean), std), g.ints(tagger.MAX_TAGS)], [z_scores, indices]
        )
    )
    audible = g("Greater", g("ReduceMax", "patch_weights", keepdims=0), g.constant(0, np.float32))
    stands_out = g("And", g("Greater", z_scores, g.constant(tagger.MIN_Z_SCORE, np.float32)), audible)
    g("Compress", indices, stands_out, axis=0, name="tags")
    g("Sigmoid", g("Gather", logits, "tags"), name="tag_probabilities")
    graph = g.build(
        "pooling",
        [
            _value("patch_weights", TensorProto.FLOAT, "n_windows", "n_patches"),
            _value("embeddings", TensorProto.FLOAT, "n_patches", tagger.EMBEDDING_SIZE),
            _value("tag_logits", TensorProto.FLOAT, "n_patches", len(tagger.TAGS)),
        ],
        [
            _value("window_embeddings", TensorProto.FLOAT, "n_windows", tagger.EMBEDDING_SIZE),
            _value("tags", TensorProto.INT64, "n_tags"),
            _value("tag_probabilities", TensorProto.FLOAT, "n_tags"),
        ],
    )
    return _serialize(graph, FRONTEND_OPSET)
