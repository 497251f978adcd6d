"""Learning rates over a training."""

import math

from d2rnet.settings import Settings


def learning_rate(iteration: int, training: Settings) -> float:
    """Learning rate of an iteration: linear warm-up, then steps or a cosine.

    Args:
        iteration: counted from 0.
        training: ``cxr.detector.training`` settings.
    """
    warm_up = training["warm_up_iters"]
    rate = training["base_lr"] * min(1.0, (iteration + 1) / warm_up if warm_up else 1.0)
    if training["lr_schedule"] == "cosine":
        least = training["final_lr_factor"]
        return rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * iteration / training["total_iters"])))
    return rate * training["lr_step_factor"] ** sum(iteration >= step for step in training["lr_step_iters"])
