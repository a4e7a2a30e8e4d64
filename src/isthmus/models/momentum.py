"""Slowly moving copies of encoders, and queues of what they gave (He et al., 2020; Li et al., 2021, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.protocols import Progress, Together


@dataclass(frozen=True, kw_only=True)
class MomentumForm:
    """How copies move and how much is remembered; BLIP's values are the default.

    Attributes:
        decay: Share of a copy that stays at each step.
        queue: Pictures, and texts, that are remembered.
        soft: Share of each target that follows what the copies find alike.
        ramp: Share of a stage in which `soft` rises from 0.
    """

    decay: float = 0.995
    queue: int = 57_600
    soft: float = 0.4
    ramp: float = 0.1

    def soft_share(self, progress: Progress) -> float:
        """`soft` as far as it has risen."""
        return self.soft * min(1.0, progress.fraction / self.ramp) if self.ramp else self.soft


@final
class Queue(nn.Module):
    """The latest vectors, of which new ones take the places of the oldest; at first it is empty.

    The published code fills it with noise first and wants a length that the batch divides; neither is needed here.
    """

    def __init__(self, *, length: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(length, embed_dim))
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Float[Tensor, "earlier dim"]:
        """What it holds, in no order."""
        vectors = self.get_buffer("vectors")
        return vectors[: int(self.get_buffer("num_seen"))]

    def add(self, vectors: Float[Tensor, "new dim"]) -> None:
        """Put vectors in, from where the last ones ended, going on at the beginning behind the end."""
        held, seen = self.get_buffer("vectors"), self.get_buffer("num_seen")
        kept = vectors[-len(held) :]
        first = int(seen) + len(vectors) - len(kept)
        places = (first + torch.arange(len(kept), device=held.device)) % len(held)
        held[places] = kept.to(held.dtype)
        seen += len(vectors)

    def clear(self) -> None:
        """Forget everything."""
        self.get_buffer("vectors").zero_()
        self.get_buffer("num_seen").zero_()


@final
class Momentum(nn.Module):
    """Copies of some parameters, kept as buffers: nothing trains them, and a checkpoint resumes them.

    `others` are the processes that train together; their queues are equal, because each gets what all of them gave.
    """

    def __init__(self, *, followed: Mapping[str, Tensor], embed_dim: int, form: MomentumForm) -> None:
        """Copy.

        Args:
            followed: The parameters by their names in the model.
            embed_dim: Size of the vectors that are remembered.
            form: How copies move and how much is remembered.
        """
        super().__init__()
        self.form = form
        self.names = tuple(followed)
        for name, parameter in followed.items():
            self.register_buffer(_kept_as(name), parameter.detach().clone())
        self.images = Queue(length=form.queue, embed_dim=embed_dim)
        self.texts = Queue(length=form.queue, embed_dim=embed_dim)
        self.others: Together | None = None

    def copies(self) -> dict[str, Tensor]:
        """The copies by the names of what they follow."""
        return {name: self.get_buffer(_kept_as(name)) for name in self.names}

    def every(self, own: Float[Tensor, "own dim"]) -> tuple[Float[Tensor, "every dim"], int]:
        """The vectors of all processes that train together, and the place of this one's first."""
        return (own, 0) if self.others is None else self.others.every(own)

    @torch.no_grad()
    def begin(self, model: nn.Module) -> None:
        """Be equal to what is followed, and remember nothing."""
        for name, copy in self.copies().items():
            copy.copy_(model.get_parameter(name))
        self.images.clear()
        self.texts.clear()

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move each copy a little: decay * copy + (1 - decay) * what it follows."""
        for name, copy in self.copies().items():
            copy.lerp_(model.get_parameter(name).detach(), 1 - self.form.decay)


def _kept_as(name: str) -> str:
    return name.replace(".", "/")
