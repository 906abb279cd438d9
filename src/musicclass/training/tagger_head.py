"""The tagger branch: embeddings of musicnn -> logits of genres, by logistic regression.

Sources define genres differently: rock of GTZAN, with clips from before 2002, isn't rock of a collection from 2013. So
one source may have an expert of its own, and a gate, which is how much a track resembles that source, blends both
(mixture of experts, Jacobs et al. 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_softmax, logsumexp

from musicclass.config import Config
from musicclass.features import Array
from musicclass.tagger import EMBEDDING_SIZE
from musicclass.training.linear import Linear, fit_linear, fit_logistic
from musicclass.training.ood import Floats, Ints
from musicclass.training.tracks import LabelledTracks

EXPERT_SHARE, EXPERT_SLOPE = 0.35, 0.7  # the expert's share where the gate is 0.5, and per unit of the gate


@dataclass(frozen=True, eq=False)
class TaggerHead:
    """The classifier of embeddings. Without an expert, `general` is all of it."""

    general: Linear
    c: float = 0.0  # the inverse penalty that it was fitted with
    expert: Linear | None = None  # of the genres in `expert_genres`
    gate: Linear | None = None  # one output: the log odds of the expert's source
    expert_genres: Ints | None = None  # their indices

    def logits(self, embeddings: Array) -> Array:
        """Log-probabilities (n, n_genres) for normalized embeddings (n, 200); zeros where one is all zeros."""
        result = log_softmax(self.general(embeddings), axis=1)
        if self.expert is not None and self.gate is not None:
            share = np.clip(EXPERT_SHARE + EXPERT_SLOPE * (expit(self.gate(embeddings)) - 0.5), 0, 1)
            # the expert only divides what the other one gives to all of its genres together
            total = logsumexp(result[:, self.expert_genres], axis=1, keepdims=True)
            divided = log_softmax(self.expert(embeddings), axis=1) + total
            result[:, self.expert_genres] = share * divided + (1 - share) * result[:, self.expert_genres]
        return np.asarray(result * embeddings.any(axis=1, keepdims=True), np.float32)


def fit_tagger_head(tracks: LabelledTracks, config: Config) -> TaggerHead:
    """Fit to the mean normalized embedding of those tracks that have one. Without any, all logits are zeros."""
    tracks = tracks.subset_of(np.array(tracks.embeddings.any(axis=1), np.bool_))
    labels, n_genres = tracks.labels, len(tracks.genres)
    if len(np.unique(labels)) < 2:
        return TaggerHead(Linear(np.zeros((EMBEDDING_SIZE, n_genres)), np.zeros(n_genres)))
    embeddings, within = tracks.embeddings, _covariance_within(list(tracks.patches.values()))
    general, c = fit_linear(embeddings, tracks, config, within)
    own = np.array([track.source == config.model.tagger_expert != "" for track in tracks.tracks])
    genres = np.unique(labels[own])
    if own.all() or len(genres) < 2:
        return TaggerHead(general, c)
    own_tracks = tracks.subset_of(own)
    own_weights = own_tracks.weights(config.training.label_weights, 1.0)
    indices = np.searchsorted(genres, labels[own])
    expert = fit_logistic(embeddings[own], indices, own_weights, len(genres), c, within)
    balanced = np.where(own, 0.5 / own.mean(), 0.5 / (1 - own.mean()))
    two = fit_logistic(embeddings, own.astype(np.intp), balanced, 2, c, within)
    gate = Linear(two.coefficients[:, 1:] - two.coefficients[:, :1], two.intercepts[1:] - two.intercepts[:1])
    return TaggerHead(general, c, expert, gate, genres)


def _covariance_within(tracks: Sequence[Array]) -> Floats:
    """The covariance (d, d) of the vectors (n, d) of each track around its mean."""
    deviations = np.concatenate([vectors - vectors.mean(axis=0) for vectors in tracks]).astype(np.float64)
    return np.asarray(deviations.T @ deviations / max(1, len(deviations) - len(tracks)))
