"""After the first steps: did everything that should learn get a gradient, and did everything frozen stay as it was?"""

import hashlib
from collections.abc import Iterable
from typing import final

from torch import Tensor

from isthmus.core.errors import GuardError
from isthmus.training.durability import bytes_of
from isthmus.training.parameters import TrainableModule, TrainableSplit

AUDITED_STEPS = 3
_NAMED = 8


def digest_of(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes of one tensor, with the scales of one that is held in 4 bits."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(bytes_of(tensor))
    state = vars(tensor).get("quant_state")
    scales = {} if state is None else state.as_dict(packed=True)
    for name in sorted(scales):
        digest.update(bytes_of(scales[name]))
    return digest.hexdigest()


def frozen_digests(model: TrainableModule, split: TrainableSplit) -> dict[str, str]:
    """`digest_of` every frozen parameter and every persistent buffer of a frozen part, by name."""
    digests = {name: digest_of(parameter) for name, parameter in split.frozen.items()}
    digests.update((name, digest_of(model.get_buffer(name))) for name in split.frozen_buffers)
    return digests


def frozen_hash(model: TrainableModule, split: TrainableSplit) -> str:
    """One SHA-256 for the whole frozen base of a model; a checkpoint is valid only on top of the same one."""
    lines = sorted(f"{name} {digest}\n" for name, digest in frozen_digests(model, split).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@final
class TrainingAudit:
    """Watches the first `num_steps` steps whose learning rate is above zero, then gives a verdict once.

    A tensor passes when its gradient was not all zero in *any* of these steps: behind a gate at 0, or behind LoRA's
    B = 0, the first step gives exactly zero and later ones do not.
    """

    def __init__(
        self, model: TrainableModule, split: TrainableSplit, *, num_steps: int = AUDITED_STEPS
    ) -> None:
        self._model = model
        self._split = split
        self._steps_left = num_steps
        self._num_steps = num_steps
        self._silent = set(split.trainable)
        self._before = frozen_digests(model, split)

    def observe(self, learning_rate: float) -> None:
        """Look at the gradients of one step, between the backward pass and the update."""
        if self._steps_left == 0 or learning_rate <= 0:
            return
        self._steps_left -= 1
        for name in sorted(self._silent):
            gradient = self._split.trainable[name].grad
            if gradient is not None and bool(gradient.count_nonzero()):
                self._silent.discard(name)

    def conclude(self) -> None:
        """After an update: once enough steps were seen, compare; free until then and after.

        Raises:
            GuardError: A trainable tensor never had a gradient, or a frozen one changed.
        """
        if self._steps_left > 0 or not self._num_steps:
            return
        steps, self._num_steps = self._num_steps, 0
        after = frozen_digests(self._model, self._split)
        changed = sorted(name for name, digest in self._before.items() if after[name] != digest)
        if changed:
            raise GuardError(
                f"{len(changed)} frozen tensors changed within {steps} steps: {_some(changed)}; expected every "
                f"frozen tensor to keep its bits; look for in-place writes and for batch norms in train mode"
            )
        if self._silent:
            raise GuardError(
                f"{len(self._silent)} of {len(self._split.trainable)} trainable tensors had no gradient in {steps} "
                f"steps: {_some(sorted(self._silent))}; expected each to have a non-zero one; freeze these parts or "
                f"give the stage an objective and rows that use them"
            )
        self._before = {}


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
