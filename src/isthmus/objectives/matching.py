"""Image-text matching: does this text belong to this picture? The wrong ones are hard (Li et al., 2021 and 2023)."""

from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Matches, Progress, Term
from isthmus.objectives.representations import representations_of, similarities


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pictures and texts to be looked at together, by their places in the batch, and whether they belong together."""

    images: Int[Tensor, " pair"]
    texts: Int[Tensor, " pair"]
    together: Int[Tensor, " pair"]


@final
class Matching:
    """For every text its own picture and a wrong one, for every picture a wrong text: one right pair to two wrong ones.

    Wrong ones are drawn in proportion to the softmax of scaled similarities, so mostly from those that are easily
    taken for right, and never from those that belong together (Li et al., 2021, section 3.2); a text of another picture
    that says the same word for word belongs, too.
    """

    def __init__(self, model: Matches, *, hardness: float = 1.0) -> None:
        """Ask a model which pairs match.

        Args:
            model: Gives similarities' scale and logits.
            hardness: What scaled similarities are multiplied by before wrong pairs are drawn: 1 as published; 0 draws
                all evenly, and a model that begins from random weights learns sooner from that.
        """
        self.model = model
        self.hardness = hardness

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pairs."""
        texts = 0 if batch.token_ids is None else len(batch.token_ids)
        return {"matching": 2 * texts + len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `matching`; it has no label smoothing."""
        del progress
        pairs = self.pairs(encoded, batch)
        logits = self.model.match(encoded, batch, images=pairs.images, texts=pairs.texts)
        total = functional.cross_entropy(logits.float(), pairs.together, reduction="sum")
        return {"matching": Term(sum=total, count=len(pairs.together))}

    @torch.no_grad()
    def pairs(self, encoded: Encoded, batch: Batch) -> Pairs:
        """Right pairs, then texts with wrong pictures, then pictures with wrong texts; drawn by the global generator.

        Raises:
            ValueError: A text or a picture has nothing wrong to be put beside.
        """
        found = representations_of(encoded, batch)
        own, num_texts, num_images = found.image_of_text, len(found.text_vectors), len(found.image_views)
        scores = similarities(found.image_views, found.text_vectors)
        wrong = ~_belonging(own, num_images, batch.image_ids, _alike(batch, own))
        if not (wrong.any(dim=0).all() and wrong.any(dim=1).all()):
            raise ValueError(
                "a matching batch needs a wrong picture for every text and a wrong text for every picture; use at "
                "least 2 different pictures"
            )
        logits = (self.hardness * scores.float() * self.model.logit_scale()).masked_fill(~wrong, -torch.inf)
        images = rearrange(torch.multinomial(logits.softmax(dim=0).T, 1), "text 1 -> text")
        texts = rearrange(torch.multinomial(logits.softmax(dim=1), 1), "image 1 -> image")
        every_text = torch.arange(num_texts, device=own.device)
        every_image = torch.arange(num_images, device=own.device)
        right = torch.ones_like(every_text)
        return Pairs(
            images=torch.cat([own, images, every_image]),
            texts=torch.cat([every_text, every_text, texts]),
            together=torch.cat([right, torch.zeros_like(images), torch.zeros_like(texts)]),
        )


def _belonging(
    own: Int[Tensor, " text"], num_images: int, image_ids: tuple[str, ...], alike: Int[Tensor, " text"]
) -> Bool[Tensor, "image text"]:
    """Which pictures and texts belong together.

    A picture that is there twice belongs to the texts of both, and two pictures with the same words to each other's.
    """
    names = list(image_ids) if len(image_ids) == num_images else list(range(num_images))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    picture = torch.tensor([numbers[name] for name in names], device=own.device)
    together = rearrange(picture, "image -> image 1") == picture[own]
    return (together.float() @ functional.one_hot(alike).float())[:, alike] > 0


def _alike(batch: Batch, own: Int[Tensor, " text"]) -> Int[Tensor, " text"]:
    """A number for each text, the same for the same words."""
    if batch.token_ids is None:
        return torch.arange(len(own), device=own.device)
    return batch.token_ids.unique(dim=0, return_inverse=True)[1]
