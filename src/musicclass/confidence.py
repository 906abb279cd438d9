"""What a network's answer is worth: calibrated probabilities, and whether it heard music of the kind it knows.

A network names a genre for a dial tone as firmly as for a song. So confidence is a product: the probability
of the best genre, among the genres, times the familiarity of the sound, which the network has no part in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize

from musicclass.features import Array

Floats = npt.NDArray[np.float64]

N_MFCC = 8  # the lowest coefficients: the spectrum's rough shape; with more, unheard music seems strange too
STEEPNESS = 6  # how fast familiarity falls with the distance
UNSURE = 0.05  # share of held-out music that is told to be unknown, at most


@dataclass(frozen=True)
class Familiarity:
    """How near a sound lies to the music a model learnt from, by its MFCCs' statistics (Mahalanobis distance)."""

    centre: Floats  # (n,)
    precision: Floats  # (n, n), inverse covariance
    half: float  # the squared distance that is half familiar

    @classmethod
    def fit(cls, learnt: list[Array], held_out: list[Array]) -> Familiarity:
        """From the windows of the tracks that a model learnt from, and of other tracks of that kind."""
        known = np.concatenate([statistics(windows) for windows in learnt])
        spread = known.var(axis=0) * 1e-3 + 1e-9  # keeps few or equal windows from infinite precision
        covariance = np.cov(known.T) + np.diag(spread)
        fitted = cls(known.mean(axis=0), np.linalg.inv(covariance), half=1.0)
        distances = [fitted.distances(windows).mean() for windows in held_out]
        return cls(fitted.centre, fitted.precision, half=max(1e-9, float(np.quantile(distances, 0.99))))

    def distances(self, windows: Array) -> Floats:
        """Squared distance of each of the MFCC windows (n_windows, n_frames, n_mfcc)."""
        off = statistics(windows) - self.centre
        squared: Floats = np.einsum("wi,ij,wj->w", off, self.precision, off)
        return squared

    def share(self, distance: Any) -> Any:
        """From 1, as near as the music it knows, over 0.5 at `half`, to 0, far off."""
        return 1 / (1 + (distance / self.half) ** STEEPNESS)


def statistics(windows: Array) -> Floats:
    """Mean, log deviation and log deviation of the steps of each window's lowest MFCCs: (n_windows, 3 * n)."""
    low = np.float64(windows[:, :, :N_MFCC])
    spreads = [np.log(values.std(axis=1) + 0.1) for values in (low, np.diff(low, axis=1))]
    return np.concatenate([low.mean(axis=1), *spreads], axis=1)


class Told(NamedTuple):
    """Of one track, as a whole and by its windows."""

    probabilities: Floats  # (n_genres,), sum to 1
    familiarity: float
    confidence: float
    by_window: Floats  # (n_windows, n_genres), probabilities
    sure: Floats  # (n_windows,), confidence


@dataclass(frozen=True)
class Confidence:
    """Turns windows and their logits into probabilities and confidence; without arguments, leaves them as they are."""

    temperature: float = 1.0  # logits are divided by it (Guo et al. 2017)
    min_confidence: float = 0.0  # below it, the genre is unknown
    familiarity: Familiarity | None = None

    @classmethod
    def fit(
        cls, learnt: list[Array], held_out: list[Array], logits: list[Array], truth: npt.NDArray[np.intp]
    ) -> Confidence:
        """From windows of the training tracks, and from windows, logits and genres of tracks that are none of these."""
        familiarity = Familiarity.fit(learnt, held_out)
        temperature = fit_temperature(logits, truth)
        fitted = cls(temperature, 0.0, familiarity)
        sure = [fitted.track(*pair).confidence for pair in zip(held_out, logits, strict=True)]
        return cls(temperature, float(np.sort(sure)[int(UNSURE * len(sure))]), familiarity)

    def track(self, windows: Array, logits: Array) -> Told:
        """What a track's windows tell together: probabilities by the mean of their logits, and their mean distance."""
        by_window, probabilities = self.probabilities(logits), self.probabilities(logits.mean(axis=0))
        familiarity, shares = 1.0, np.ones(len(windows))
        if self.familiarity is not None:
            distances = self.familiarity.distances(windows)
            familiarity, shares = float(self.familiarity.share(distances.mean())), self.familiarity.share(distances)
        confidence = float(probabilities.max()) * familiarity
        return Told(probabilities, familiarity, confidence, by_window, by_window.max(axis=1) * shares)

    def probabilities(self, logits: Array) -> Floats:
        """Of each genre: the softmax of logits (..., n_genres) over the temperature."""
        return softmax(logits / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """For the card."""
        plain: dict[str, Any] = {"temperature": self.temperature, "min_confidence": self.min_confidence}
        if self.familiarity is not None:
            plain["familiarity"] = {
                "centre": self.familiarity.centre.tolist(),
                "precision": self.familiarity.precision.tolist(),
                "half": self.familiarity.half,
            }
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Confidence:
        """From a card. Raises KeyError, TypeError or ValueError for what is none."""
        familiarity = None
        if "familiarity" in plain:
            parts = plain["familiarity"]
            centre, precision = np.array(parts["centre"], np.float64), np.array(parts["precision"], np.float64)
            if precision.shape != 2 * centre.shape:
                raise ValueError(f"familiarity: {precision.shape} doesn't fit {centre.shape}")
            familiarity = Familiarity(centre, precision, float(parts["half"]))
        return cls(float(plain["temperature"]), float(plain["min_confidence"]), familiarity)


def fit_temperature(logits: list[Array], truth: npt.NDArray[np.intp]) -> float:
    """The temperature with the lowest log loss of tracks' mean logits; logits (n_windows, n_genres) by track."""
    means = np.stack([item.mean(axis=0) for item in logits])

    def loss(log_temperature: float) -> float:
        told = softmax(means / np.exp(log_temperature))[np.arange(len(truth)), truth]
        return -float(np.log(told + 1e-12).mean())

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def softmax(logits: Array) -> Floats:
    """Probabilities (..., n_genres) of logits."""
    powers = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
