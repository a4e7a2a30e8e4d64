"""The sigmoid loss of a batch that is spread over processes (Zhai et al., 2023, section 3.3, "efficient chunked")."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from isthmus.objectives.representations import Representations
from isthmus.objectives.sigmoid import Sigmoid, sum_of_pairs
from isthmus.training.exchange import NamedGroup, padded, pass_on


def ring_share(objective: Sigmoid, representations: Representations, group: NamedGroup) -> Float[Tensor, ""]:
    """What this process's pictures lose on the texts of all processes, divided by the pictures of all.

    Texts travel: each process judges its pictures against its own texts, hands the texts on, judges those that came
    from the process before, and so on round the ring. The gradient of a text travels with it and is complete when it
    is home again. So at no time does a process hold more than its own pictures, one process's texts and the square of
    pairs between them, whatever the number of processes; nothing is kept for the backward pass but gradients.
    """
    return _Ring.apply(
        representations.image_views,
        representations.text_vectors,
        objective.model.logit_scale(),
        objective.model.logit_bias(),
        representations.image_of_text,
        group,
    )


class _Ring(torch.autograd.Function):
    """Loss and gradients in one journey of the texts; the backward pass only multiplies."""

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        texts: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        owners: Tensor,
        group: NamedGroup,
    ) -> Tensor:
        sizes = group.sizes(views.shape[0], texts.shape[0])
        num_images = sum(images for images, _ in sizes)
        first = sum(images for images, _ in sizes[: group.rank])
        longest = max(count for _, count in sizes)
        leaves = [one.detach().requires_grad_() for one in (views, scale) + (() if bias is None else (bias,))]
        gradients = [torch.zeros_like(leaf) for leaf in leaves]
        visiting, found = padded(texts.detach(), longest), padded(torch.zeros_like(texts), longest)
        whose = padded(owners + first, longest)
        total = scale.new_zeros(())
        for hop in range(group.num):
            count = sizes[(group.rank - hop) % group.num][1]
            guests = visiting[:count].clone().requires_grad_()
            pairs = Representations(
                image_views=leaves[0], text_vectors=guests, image_of_text=whose[:count] - first
            )
            with torch.enable_grad():
                lost = sum_of_pairs(pairs, scale=leaves[1], bias=leaves[2] if bias is not None else None)
                lost = lost / num_images
            *own, of_guests = torch.autograd.grad(lost, [*leaves, guests])
            total += lost.detach()
            gradients = [before + more for before, more in zip(gradients, own, strict=True)]
            found[:count] += of_guests
            if group.num > 1:
                visiting, found, whose = pass_on([visiting, found, whose], group)
        ctx.save_for_backward(gradients[0], found[: texts.shape[0]], *gradients[1:])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        of_views, of_texts, of_scale, *of_bias = (gradients[0] * saved for saved in ctx.saved_tensors)
        return of_views, of_texts, of_scale, of_bias[0] if of_bias else None, None, None
