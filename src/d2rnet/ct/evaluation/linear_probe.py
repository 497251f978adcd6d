"""A linear classifier of labels on frozen features, with a threshold per label that is chosen on validation volumes.

Logistic regression of each label by L-BFGS on standardised features; a label that is not known adds nothing to the loss.

Shapes: M training volumes, N volumes, D features, C labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2rnet.evaluation.labeller import Named

DEFAULT_THRESHOLD = 0.5  # of a label of which validation holds no positive

Features = NDArray[np.float32]


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier.

    Attributes:
        mean: (D,) of the training features.
        scale: (D,) their standard deviation, 1 where they do not vary.
        weight: (C, D).
        bias: (C,).
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Return (N, C) probabilities of (N, D) features."""
        logits = (features - self.mean) / self.scale @ self.weight.T + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


def fit_probe(features: Features, labels: Named, known: Named, *, penalty: float, max_iterations: int) -> LinearProbe:
    """Fit one logistic regression per label; the optimum is unique where the penalty is above 0.

    Args:
        features: (M, D), finite.
        labels: (M, C) bool.
        known: (M, C) bool, False where the label is not known.
        penalty: half of it times the sum of squared weights is added to the mean loss of each label; not of the bias.
        max_iterations: of L-BFGS.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    spread = features.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0, spread, 1.0)
    centred = features.astype(np.float64)
    centred -= mean
    centred /= scale
    inputs = torch.from_numpy(centred)  # (M, D)
    targets = torch.from_numpy(labels.astype(np.float64))
    shares = torch.from_numpy(known / np.maximum(known.sum(axis=0), 1))  # (M, C), sum 1 over the known of each label
    weight = torch.zeros(labels.shape[1], inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=max_iterations, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ weight.T + bias  # (M, C)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss = (losses * shares).sum() + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return LinearProbe(mean, scale, weight.detach().numpy(), bias.detach().numpy())


def best_thresholds(probabilities: NDArray[np.float64], labels: Named, known: Named) -> NDArray[np.float64]:
    """Choose for each label the threshold with the greatest F1; a label is claimed at or above it.

    Args:
        probabilities: (N, C) of validation volumes.
        labels: (N, C) bool.
        known: (N, C) bool.

    Returns:
        (C,) thresholds, half-way to the next lower probability; of equal F1 the highest, and DEFAULT_THRESHOLD where no known
        label is positive.
    """
    found = np.full(labels.shape[1], DEFAULT_THRESHOLD)
    for column in range(labels.shape[1]):
        judged = known[:, column]
        truth = labels[judged, column]
        if not truth.any():
            continue
        order = np.argsort(-probabilities[judged, column], kind="stable")
        values = probabilities[judged, column][order]
        hits = np.cumsum(truth[order])
        f1 = 2 * hits / (np.arange(1, len(values) + 1) + truth.sum())
        last_of_equals = np.append(values[:-1] > values[1:], True)
        place = int(np.argmax(np.where(last_of_equals, f1, -1.0)))
        below = values[place + 1] if place + 1 < len(values) else 0.0
        found[column] = (values[place] + below) / 2
    return found
