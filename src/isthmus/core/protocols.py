"""What models offer to objectives and a feature store to data; objectives speak to these, not to models."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where in a stage the training is; `step` counts from 0."""

    step: int
    num_steps: int

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, in [0, 1]."""
        return self.step / max(self.num_steps, 1)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One named loss of a batch: a sum and what it is divided by over the whole global batch."""

    sum: Float[Tensor, ""]
    count: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What one forward pass of a model gave; objectives share it.

    Attributes:
        image_views: One or more unit vectors an image (1 for CLIP, 32 for a Q-Former).
        text_vectors: One unit vector a text.
        hidden: Last hidden states of the language model, before its output head.
        predictions: What is predicted of each patch: its pixels, or a score for each code.
        pictures: Pictures that were read back from their codes.
        class_scores: A score for each class, before any softmax.
    """

    image_views: Float[Tensor, "image view dim"] | None = None
    text_vectors: Float[Tensor, "text dim"] | None = None
    hidden: Float[Tensor, "row token dim"] | None = None
    predictions: Float[Tensor, "image patch value"] | None = None
    pictures: Float[Tensor, "image channel height width"] | None = None
    class_scores: Float[Tensor, "image class"] | None = None


@runtime_checkable
class Contrasts(Protocol):
    """A model that gives images and texts vectors in one space."""

    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by (already exponentiated)."""
        ...

    def logit_bias(self) -> Float[Tensor, ""] | None:
        """What is added to scaled similarities, or None (softmax losses need none)."""
        ...


@runtime_checkable
class Together(Protocol):
    """Whoever learns the same step: other processes, each with rows of its own."""

    def every(self, own: Float[Tensor, "own dim"]) -> tuple[Float[Tensor, "every dim"], int]:
        """The rows of all processes in the order of ranks, without a gradient, and the place of this one's first."""
        ...


@dataclass(frozen=True, kw_only=True)
class SlowVectors:
    """What slowly moving copies of both encoders give for a step, and gave for earlier ones; all of length one.

    Attributes:
        images: Of each picture of the step, those of other processes included.
        texts: Of each text of the step.
        earlier_images: Of pictures of earlier steps.
        earlier_texts: Of texts of earlier steps.
        first_image: The place of the batch's first picture among `images`.
        first_text: The place of its first text among `texts`.
    """

    images: Float[Tensor, "image dim"]
    texts: Float[Tensor, "text dim"]
    earlier_images: Float[Tensor, "earlier_image dim"]
    earlier_texts: Float[Tensor, "earlier_text dim"]
    first_image: int = 0
    first_text: int = 0


@runtime_checkable
class Remembers(Contrasts, Protocol):
    """A model with slowly moving copies of its encoders and a memory of what they gave."""

    def slow_vectors(self, batch: Batch) -> SlowVectors:
        """What the copies give for a batch, which joins the memory after the step."""
        ...

    def soft_share(self, progress: Progress) -> float:
        """The share of each target that follows what the copies find alike."""
        ...


@runtime_checkable
class Matches(Contrasts, Protocol):
    """A model that can look at a picture and a text together and say whether they belong together."""

    def match(
        self, encoded: Encoded, batch: Batch, *, images: Int[Tensor, " pair"], texts: Int[Tensor, " pair"]
    ) -> Float[Tensor, "pair 2"]:
        """Logits of "no" and "yes" for pairs of pictures and texts, given by their places in the batch."""
        ...


@runtime_checkable
class Captions(Protocol):
    """A model that writes texts about pictures."""

    def caption(self, encoded: Encoded, batch: Batch) -> Float[Tensor, "text token dim"]:
        """States at every token of the batch's texts, each of which sees its picture and no later token."""
        ...

    def caption_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the token after each position."""
        ...


@runtime_checkable
class PredictsTokens(Protocol):
    """A model with a language model's output head."""

    def token_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next token at each position."""
        ...


@runtime_checkable
class HasCodes(Protocol):
    """A model that knows the code of every patch."""

    def codes(self, batch: Batch) -> Int[Tensor, "image patch"]:
        """The code of every patch, hidden or not."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Turns what a model encoded into named losses."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """What each term will be divided by, known from data alone (so that accumulation equals the big batch)."""
        ...

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """The terms of this batch."""
        ...


@runtime_checkable
class StoredFeatures(Protocol):
    """Outputs of a frozen vision encoder, found by the SHA-256 of the image file's bytes."""

    def __contains__(self, digest: str) -> bool: ...

    def read(self, digest: str) -> Float[Tensor, "patch dim"]:
        """The stored features of one picture, in float32."""
        ...


@runtime_checkable
class TrainableModel(Protocol):
    """What the trainer asks of a model besides being a `torch.nn.Module`."""

    def encode(self, batch: Batch) -> Encoded:
        """Run the model once; every objective of the stage reads the result."""
        ...

    def parts(self) -> dict[str, torch.nn.Module]:
        """The named parts a recipe can train or freeze; together they hold every parameter."""
        ...

    def after_step(self, progress: Progress) -> None:
        """Clamp scales, move momentum copies, fill queues."""
        ...
