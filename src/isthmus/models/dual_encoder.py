"""Two encoders that meet in one space: CLIP, LiT, SigLIP and their relatives (Radford et al., 2021, Figure 3)."""

import math
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress
from isthmus.models.model import Model
from isthmus.models.pictures import patch_tokens
from isthmus.nn.members import Members
from isthmus.parts.language.pretrained_text import PretrainedTextEncoder
from isthmus.parts.language.text_encoder import TextEncoder
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.parts.vision.head import ImageHead, MapHead

MAX_LOG_SCALE = math.log(100.0)


class Scale(nn.Module):
    """The learned factor on similarities, kept as its logarithm in [0, ln 100] (Radford et al., 2021, section 2.5).

    The sigmoid loss also learns what is added to the product (Zhai et al., 2023, section 3.2), with no bounds.
    """

    def __init__(self, *, start: float, bias: float | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def forward(self) -> Float[Tensor, ""]:
        """The factor itself."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the factor between 1 and 100."""
        self.log_scale.clamp_(0.0, MAX_LOG_SCALE)


@final
class DualEncoder(Model):
    """Pictures and texts become unit vectors; similarity is their product."""

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        image_head: ImageHead | MapHead | Members,
        text: TextEncoder | PretrainedTextEncoder | Members,
        scale_init: float = 1 / 0.07,
        bias_init: float | None = None,
    ) -> None:
        """Join the two encoders.

        Args:
            vision: From pixels to patches; frozen in locked-image tuning (Zhai et al., 2022).
            image_head: From patches to one vector, or several heads whose vectors are joined.
            text: From token ids to one vector of the same size, or as many text encoders as there are heads.
            scale_init: First factor on similarities.
            bias_init: First addend to scaled similarities; None: nothing is added.
        """
        super().__init__()
        self.vision = vision
        self.image_head = image_head
        self.text = text
        self.scale = Scale(start=scale_init, bias=bias_init)
        self.num_members = len(image_head.networks) if isinstance(image_head, Members) else 1

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `alpha` inside it where regions are marked, `image_head`, `text`, `scale`."""
        alpha = self.vision.alpha
        return {
            "vision": self.vision,
            **({} if alpha is None else {"alpha": alpha}),
            "image_head": self.image_head,
            "text": self.text,
            "scale": self.scale,
        }

    def image_vectors(self, batch: Batch) -> Float[Tensor, "image dim"] | None:
        """Unit vectors of the batch's pictures."""
        patches = patch_tokens(self.vision, batch)
        return None if patches is None else functional.normalize(self.image_head(patches), dim=-1)

    def text_vectors(self, batch: Batch) -> Float[Tensor, "text dim"] | None:
        """Unit vectors of the batch's texts."""
        if batch.token_ids is None:
            return None
        assert batch.attention_mask is not None
        return functional.normalize(self.text(batch.token_ids, batch.attention_mask), dim=-1)

    def encode(self, batch: Batch) -> Encoded:
        """Vectors of both sides."""
        images = self.image_vectors(batch)
        return Encoded(
            image_views=None if images is None else rearrange(images, "image dim -> image 1 dim"),
            text_vectors=self.text_vectors(batch),
        )

    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by."""
        return self.scale()

    def logit_bias(self) -> Float[Tensor, ""] | None:
        """What is added to scaled similarities; None where the model has no bias."""
        return self.scale.bias

    def after_step(self, progress: Progress) -> None:
        """Keep the scale in its range."""
        del progress
        self.scale.clamp()
