"""Which anchors and proposals of an image enter the losses: decided by a seed of the image, not of the batch.

detectron2 samples from torch's global generator, image after image, so what it draws for one image depends on those before it.
Here each target may carry a seed, and the generator is set to it before the image is sampled: the losses of an image are the
same in whichever process, micro-batch and company it is computed.
"""

import torch
from detectron2.structures import Instances

ANCHORS = 0  # added to the seed: the two samplings of an image are independent
PROPOSALS = 1


def seeded(target: Instances, seed: int | None) -> Instances:
    """Let a target carry the seed of its image.

    Args:
        target: changed in place. ``Instances`` keeps one value per box in its fields; a private attribute keeps one per image.
        seed: in [0, 2**62); None samples from wherever torch's generator stands.

    Returns:
        The target.
    """
    target._sampling_seed = seed
    return target


def seed_sampling(target: Instances, step: int) -> None:
    """Set torch's generator before the anchors (``ANCHORS``) or proposals (``PROPOSALS``) of a target's image are sampled.

    Only that of the target's device: ``torch.manual_seed`` also queues the seed, with the formatted call stack, for each kind
    of accelerator that is not in use; that took 0.4 ms per call, twice per image.
    """
    seed = getattr(target, "_sampling_seed", None)
    if seed is not None:
        device = target.gt_boxes.device
        generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
        generator.manual_seed(seed + step)
