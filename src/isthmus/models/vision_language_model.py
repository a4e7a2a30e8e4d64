"""A frozen or trained vision encoder joined to a language model by a connector."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.core.sizes import Size
from isthmus.models.model import Model
from isthmus.models.pictures import patch_tokens
from isthmus.nn.pooling import square_side
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.fusion.newline import Newline
from isthmus.parts.fusion.splice import known_ids, splice
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.vision.encoder import VisionEncoder


@final
class VisionLanguageModel(Model):
    """Pictures become visual tokens that stand among the words.

    One forward pass: pixels -> patches (vision) -> visual tokens (connector) -> spliced among the text's embeddings at
    the placeholders (fusion) -> hidden states (language). The output head runs later, only where a target stands.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        connector: Connector,
        language: LanguageModel,
        placeholder_id: int,
        lora: nn.Module | None = None,
        newline: Newline | None = None,
    ) -> None:
        """Join the parts.

        Args:
            vision: From pixels to patches.
            connector: From patches to visual tokens of the language model's width.
            language: The causal language model.
            placeholder_id: The token id that marks a visual token's place; virtual ids are not below
                `language.vocabulary`.
            lora: The low-rank update inside `language`, so that it can be trained by name.
            newline: Joins the tiles of pictures that are cut; None where pictures are looked at as a whole.
        """
        super().__init__()
        self.vision = vision
        self.connector = connector
        self.language = language
        self.placeholder_id = placeholder_id
        self.newline = newline
        self._lora = [lora] if lora is not None else []

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `connector`, `language`, and `newline` and `lora` where there are such."""
        named: dict[str, nn.Module] = {
            "vision": self.vision,
            "connector": self.connector,
            **({"newline": self.newline} if self.newline is not None else {}),
            "language": self.language,
        }
        return named | {"lora": self._lora[0]} if self._lora else named

    def inner_parts(self) -> dict[str, nn.Module]:
        """`token_embeddings`: the language model's table, which may be tied to its output head."""
        return {"token_embeddings": self.language.token_embeddings}

    def visual_tokens(self, batch: Batch) -> Float[Tensor, "visual_token dim"] | None:
        """All visual tokens of the batch in reading order, or None for text alone.

        Raises:
            ValueError: The layout promises other numbers than the connector gives.
        """
        patches = patch_tokens(self.vision, batch)
        if patches is None:
            return None
        visual = self.connector(patches)
        if self.newline is not None:
            return self._joined(self.newline, visual, batch)
        if batch.layout is not None and set(batch.layout.tokens_per_image) - {visual.shape[1]}:
            raise ValueError(
                f"the processor planned {sorted(set(batch.layout.tokens_per_image))} visual tokens an image, but the "
                f"connector gives {visual.shape[1]}; build both from the same recipe"
            )
        return rearrange(visual, "image token dim -> (image token) dim")

    def _joined(
        self, newline: Newline, visual: Float[Tensor, "tile token dim"], batch: Batch
    ) -> Float[Tensor, "visual_token dim"]:
        """Tiles joined to pictures."""
        layout, side = batch.layout, square_side(visual.shape[1])
        if layout is None or not layout.cuts:
            raise ValueError("this model joins tiles, but the batch does not say how its pictures were cut")
        given = tuple(cut.num_tokens(Size(height=side, width=side)) for cut in layout.cuts)
        if layout.tokens_per_image != given:
            raise ValueError(
                f"the processor planned {list(layout.tokens_per_image)} visual tokens for the pictures, but the "
                f"connector gives {list(given)}; build both from the same recipe"
            )
        return newline(visual, layout.cuts)

    def embed(self, batch: Batch) -> Float[Tensor, "row token dim"]:
        """Embeddings of the rows with visual tokens in their places."""
        assert batch.token_ids is not None
        places = batch.token_ids == self.placeholder_id
        text = self.language.embed(known_ids(batch.token_ids, places))
        visual = self.visual_tokens(batch)
        return (
            text
            if visual is None and not places.any()
            else splice(
                text=text,
                places=places,
                visual=text.new_zeros(0, text.shape[2]) if visual is None else visual,
            )
        )

    def encode(self, batch: Batch) -> Encoded:
        """Hidden states of every position."""
        assert batch.attention_mask is not None
        return Encoded(hidden=self.language(self.embed(batch), batch.attention_mask))

    def token_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next token."""
        return self.language.logits(hidden)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Float[Tensor, "row token vocab"]:
        """Logits at every position, for checks against other implementations."""
        hidden = self.encode(batch).hidden
        assert hidden is not None
        flat = self.language.logits(rearrange(hidden, "row token dim -> (row token) dim"))
        return rearrange(flat, "(row token) vocab -> row token vocab", row=hidden.shape[0])
