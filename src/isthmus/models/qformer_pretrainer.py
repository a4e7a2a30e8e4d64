"""The model of BLIP-2's first stage: a Q-Former that contrasts, matches and captions (Li et al., 2023, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.models.model import Model
from isthmus.models.pair_heads import PairHeads
from isthmus.models.pictures import patch_tokens
from isthmus.nn.post_norm import KeysValues
from isthmus.parts.connectors.qformer import QFormer, Summary
from isthmus.parts.connectors.qformer_masks import full
from isthmus.parts.language.words import begun_with
from isthmus.parts.vision.encoder import VisionEncoder


@dataclass(frozen=True, kw_only=True)
class EncodedPairs(Encoded):
    """What the objectives of the first stage share.

    Attributes:
        patches: The pictures' tokens, which matching reads again.
        summary: The pictures as the queries saw them, which captioning reads.
    """

    patches: Float[Tensor, "image patch vision_dim"] | None = None
    summary: Summary | None = None


@final
class QFormerPretrainer(Model):
    """Queries and words share a transformer; which of them see one another is the objective's.

    Contrast: each side alone. Matching: both see all of both. Captioning: words see the queries and earlier words.
    """

    def __init__(self, *, vision: VisionEncoder, connector: QFormer, heads: PairHeads, start_id: int) -> None:
        """Join the parts.

        Args:
            vision: From pixels to patches.
            connector: The Q-Former, with its text branch.
            heads: Projections, the match and the temperature, which is never clamped, as published.
            start_id: The token that begins a caption that is written, in place of a text's first (BLIP-2's `[DEC]`).
        """
        super().__init__()
        self.vision = vision
        self.connector = connector
        self.heads = heads
        self.start_id = start_id

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `connector`, `heads`."""
        return {"vision": self.vision, "connector": self.connector, "heads": self.heads}

    def encode(self, batch: Batch) -> EncodedPairs:
        """Both sides alone: one vector a query and picture, one a text."""
        patches = patch_tokens(self.vision, batch)
        summary = None if patches is None else self.connector.summarise(patches)
        return EncodedPairs(
            image_views=None
            if summary is None
            else functional.normalize(self.heads.image(summary.queries), dim=-1),
            text_vectors=self.text_vectors(batch),
            patches=patches,
            summary=summary,
        )

    def text_vectors(self, batch: Batch) -> Float[Tensor, "text dim"] | None:
        """Unit vectors of the batch's texts, from their first token."""
        if batch.token_ids is None:
            return None
        assert batch.attention_mask is not None
        words = self.connector.read(batch.token_ids, batch.attention_mask)
        return self.heads.text_vectors(words)

    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by: one over the temperature."""
        return self.heads.logit_scale()

    def logit_bias(self) -> None:
        """The softmax loss needs none."""

    def match(
        self, encoded: Encoded, batch: Batch, *, images: Int[Tensor, " pair"], texts: Int[Tensor, " pair"]
    ) -> Float[Tensor, "pair 2"]:
        """Logits of "no" and "yes" for pairs of a picture and a text: the mean over the queries."""
        assert isinstance(encoded, EncodedPairs)
        assert encoded.patches is not None
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        num_queries, there = self.connector.shape.num_queries, batch.attention_mask[texts]
        states = self.connector.join(
            encoded.patches[images], batch.token_ids[texts], full(num_queries, there)
        )
        return reduce(self.heads.match(states[:, :num_queries]), "pair query answer -> pair answer", "mean")

    def caption(self, encoded: Encoded, batch: Batch) -> Float[Tensor, "text token dim"]:
        """States of the texts as captions that are written: their first token is the one that says so."""
        assert isinstance(encoded, EncodedPairs)
        assert encoded.summary is not None
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        started = begun_with(batch.token_ids, self.start_id)
        memory = encoded.summary.memory
        if batch.image_of_text is not None:
            memory = [read.chosen(batch.image_of_text) for read in memory]
        return self.connector.write(started, batch.attention_mask, memory)

    def caption_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next word, from BERT's head."""
        assert self.connector.text is not None
        return self.connector.text.logits(hidden)

    @property
    def caption_start(self) -> int:
        """The token that begins a caption."""
        return self.start_id

    @property
    def unwritten(self) -> tuple[int, ...]:
        """Tokens that no caption holds."""
        return (self.start_id,)

    def look(self, batch: Batch) -> list[KeysValues]:
        """What captions can read of the batch's pictures in each layer."""
        patches = patch_tokens(self.vision, batch)
        assert patches is not None
        return self.connector.summarise(patches).memory

    def write_on(
        self,
        token_ids: Int[Tensor, "text token"],
        memory: Sequence[KeysValues],
        past: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """States of further words of captions, and what later ones can read of them."""
        return self.connector.write_on(token_ids, memory, past)
