"""What a training of any model needs to be told; each section of settings documents its own values."""

from typing import ClassVar, Protocol


class OptimizationSettings(Protocol):
    """Schedule and optimiser.

    Attributes:
        place: section of ``config.yaml``, for messages.
    """

    place: ClassVar[str]

    @property
    def seed(self) -> int:
        """Seed of weights, order and dropout."""

    @property
    def epochs(self) -> int:
        """Passes over the training split."""

    @property
    def batch_size(self) -> int:
        """Entries per step, of all processes together."""

    @property
    def optimizer(self) -> str:
        """``adamw`` or ``adam_amsgrad``."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    @property
    def final_learning_rate(self) -> float:
        """Learning rate at the end of the cosine."""

    @property
    def warmup_fraction(self) -> float:
        """Share of all steps with linear warm-up."""

    @property
    def weight_decay(self) -> float:
        """Weight decay, not on norms, biases and embeddings."""

    @property
    def gradient_clip(self) -> float:
        """Bound of the gradient."""

    @property
    def gradient_clip_kind(self) -> str:
        """``norm`` of all gradients, or ``value`` of each."""

    @property
    def validate_every_epochs(self) -> int:
        """Epochs between validations."""

    @property
    def precision(self) -> str:
        """``32-true``, ``bf16-mixed`` or ``16-mixed``."""
