"""What changes with the iteration: the learning rate and the weight of the pseudo-label losses."""

import math

from d2rnet.cxr.detector.settings import DetectorTrainingSettings


def learning_rate(iteration: int, training: DetectorTrainingSettings) -> float:
    """Learning rate of an iteration, counted from 0: linear warm-up, then steps or a cosine."""
    warm_up = training.warm_up_iters
    rate = training.base_lr * min(1.0, (iteration + 1) / warm_up if warm_up else 1.0)
    if training.lr_schedule == "cosine":
        least = training.final_lr_factor
        return rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * iteration / training.total_iters)))
    return rate * training.lr_step_factor ** sum(iteration >= step for step in training.lr_step_iters)


def unsupervised_weight(iteration: int, training: DetectorTrainingSettings) -> float:
    """Weight lambda_u of the pseudo-label losses: a linear ramp after burn-in up to the full weight."""
    ramp = training.unsupervised_ramp_iters
    since_burn_in = iteration - training.burn_in_iters
    return training.unsupervised_weight * (min(1.0, (since_burn_in + 1) / ramp) if ramp else 1.0)
