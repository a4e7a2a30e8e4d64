"""BLIP's mixture of encoder and decoder: it contrasts, matches and captions (Li et al., 2022, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, SlowVectors
from isthmus.models.model import Model
from isthmus.models.momentum import Momentum, MomentumForm
from isthmus.models.pair_heads import PairHeads
from isthmus.models.pictures import patch_tokens
from isthmus.nn.post_norm import KeysValues, num_tokens
from isthmus.parts.connectors.qformer_masks import behind_earlier, full
from isthmus.parts.language.med import MedDecoder, MedEncoder, MedText
from isthmus.parts.language.words import begun_with
from isthmus.parts.vision.encoder import VisionEncoder

TEMPERATURES = (0.001, 0.5)
"""Least and largest temperature, as published."""


@dataclass(frozen=True, kw_only=True)
class StartIds:
    """What stands in the place of a text's first token.

    Attributes:
        caption: Before a text that is written (BLIP's `[DEC]`).
        match: Before one that is looked at beside a picture (BLIP's `[ENC]`).
    """

    caption: int
    match: int


@dataclass(frozen=True, kw_only=True)
class MedForm:
    """In what models of this kind differ besides their sizes.

    Attributes:
        pool: Which vector of a picture is compared: its first token's, CLS, or the mean over all tokens.
        momentum: How slow copies of both encoders move; None: there are none.
        vision_learns: Whether the vision encoder moves, so that a slow copy of it is needed.
    """

    pool: Literal["first", "mean"] = "first"
    momentum: MomentumForm | None = None
    vision_learns: bool = True


@dataclass(frozen=True, kw_only=True)
class EncodedPictures(Encoded):
    """What the objectives share.

    Attributes:
        patches: The pictures' tokens, which matching and captions read again.
        looked_at: What words can read of them in each layer; empty until the first of the two asks.
    """

    patches: Float[Tensor, "image patch vision_dim"] | None = None
    looked_at: list[KeysValues] = field(default_factory=list)


@final
class Med(Model):
    """One text transformer in three modes: words alone, words beside a picture, words that are written."""

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: MedText,
        encoder: MedEncoder,
        decoder: MedDecoder,
        heads: PairHeads,
        start_ids: StartIds,
        form: MedForm | None = None,
    ) -> None:
        """Join the parts.

        Args:
            vision: From pixels to patches.
            text: What encoder and decoder share.
            encoder: Self-attention of the words that are read.
            decoder: Self-attention of the words that are written, and their head.
            heads: Projections, the match and the temperature, which stays within `TEMPERATURES`.
            start_ids: Tokens that say what a text is there for.
            form: What else it is made of; None: pictures are compared by their first token, without momentum.
        """
        super().__init__()
        self.vision = vision
        self.text = text
        self.encoder = encoder
        self.decoder = decoder
        self.heads = heads
        self.start_ids = start_ids
        form = form or MedForm()
        self.pool = form.pool
        followed = {name: one for name, one in self.named_parameters() if _is_followed(name, form)}
        self.momentum = (
            None
            if form.momentum is None
            else Momentum(followed=followed, embed_dim=heads.text.out_features, form=form.momentum)
        )
        self._given: list[SlowVectors] = []

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `text`, `encoder`, `decoder`, `heads`."""
        return {
            "vision": self.vision,
            "text": self.text,
            "encoder": self.encoder,
            "decoder": self.decoder,
            "heads": self.heads,
        }

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "image dim"], Float[Tensor, "text dim"]]:
        """Unit vectors of the batch's pictures and texts."""
        encoded = self.encode(batch)
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        return encoded.image_views[:, 0], encoded.text_vectors

    def encode(self, batch: Batch) -> EncodedPictures:
        """Both sides alone, one vector each."""
        patches = patch_tokens(self.vision, batch)
        return EncodedPictures(
            image_views=None
            if patches is None
            else rearrange(self._image_vectors(patches), "image dim -> image 1 dim"),
            text_vectors=self.text_vectors(batch),
            patches=patches,
        )

    def text_vectors(self, batch: Batch) -> Float[Tensor, "text dim"] | None:
        """Unit vectors of the batch's texts, from their first token."""
        if batch.token_ids is None:
            return None
        assert batch.attention_mask is not None
        words, _ = self.text(self.encoder.attentions, batch.token_ids, full(0, batch.attention_mask))
        return self.heads.text_vectors(words)

    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by: one over the temperature."""
        return self.heads.logit_scale()

    def logit_bias(self) -> None:
        """The softmax loss needs none."""

    @torch.no_grad()
    def slow_vectors(self, batch: Batch) -> SlowVectors:
        """What the slow copies of both encoders give; while the model trains, it is remembered after the step.

        In training every process that takes part has to call this for its own rows.
        """
        assert self.momentum is not None
        images, texts = functional_call(self, self.momentum.copies(), (batch,))
        first_image, first_text = 0, 0
        if self.training:
            images, first_image = self.momentum.every(images)
            texts, first_text = self.momentum.every(texts)
        slow = SlowVectors(
            images=images,
            texts=texts,
            earlier_images=self.momentum.images(),
            earlier_texts=self.momentum.texts(),
            first_image=first_image,
            first_text=first_text,
        )
        if self.training:
            self._given.append(slow)
        return slow

    def soft_share(self, progress: Progress) -> float:
        """The share of each target that follows what the slow copies find alike."""
        assert self.momentum is not None
        return self.momentum.form.soft_share(progress)

    def match(
        self, encoded: Encoded, batch: Batch, *, images: Int[Tensor, " pair"], texts: Int[Tensor, " pair"]
    ) -> Float[Tensor, "pair 2"]:
        """Logits of "no" and "yes" for pairs, from the text's first token beside the picture."""
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        states, _ = self.text(
            self.encoder.attentions,
            begun_with(batch.token_ids, self.start_ids.match)[texts],
            full(0, batch.attention_mask)[texts],
            pictures=[read.chosen(images) for read in self._looked_at(encoded)],
        )
        return self.heads.match(states[:, 0])

    def caption(self, encoded: Encoded, batch: Batch) -> Float[Tensor, "text token dim"]:
        """States of the texts as captions that are written."""
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        pictures = self._looked_at(encoded)
        if batch.image_of_text is not None:
            pictures = [read.chosen(batch.image_of_text) for read in pictures]
        states, _ = self.text(
            self.decoder.attentions,
            begun_with(batch.token_ids, self.start_ids.caption),
            full(0, batch.attention_mask, causal=True),
            pictures=pictures,
        )
        return states

    def _looked_at(self, encoded: Encoded) -> list[KeysValues]:
        """What words can read of the pictures, worked out once a step for all that ask."""
        assert isinstance(encoded, EncodedPictures)
        assert encoded.patches is not None
        if not encoded.looked_at:
            encoded.looked_at.extend(self.text.look(encoded.patches))
        return encoded.looked_at

    def caption_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next word, from BERT's head."""
        return self.decoder.logits(hidden, self.text)

    @property
    def caption_start(self) -> int:
        """The token that begins a caption."""
        return self.start_ids.caption

    @property
    def unwritten(self) -> tuple[int, ...]:
        """Tokens that no caption holds."""
        return (self.start_ids.caption, self.start_ids.match)

    def look(self, batch: Batch) -> list[KeysValues]:
        """What captions can read of the batch's pictures in each layer."""
        patches = patch_tokens(self.vision, batch)
        assert patches is not None
        return self.text.look(patches)

    def write_on(
        self,
        token_ids: Int[Tensor, "text token"],
        memory: Sequence[KeysValues],
        past: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """States of further words of captions, and what later ones can read of them."""
        allowed = behind_earlier(0, token_ids, num_earlier=num_tokens(past))
        return self.text(self.decoder.attentions, token_ids, allowed, pictures=memory, past=past)

    def begin(self) -> None:
        """Let the slow copies be equal to the encoders, and forget what they gave."""
        self._given.clear()
        if self.momentum is not None:
            self.momentum.begin(self)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Keep the temperature in its range, move the slow copies, remember what they gave for the step's rows."""
        del progress
        self.heads.temperature.clamp_(*TEMPERATURES)
        if self.momentum is None or not self._given:
            return
        self.momentum.follow(self)
        for slow in self._given:
            self.momentum.images.add(slow.images)
            self.momentum.texts.add(slow.texts)
        self._given.clear()

    def _image_vectors(self, patches: Float[Tensor, "image patch vision_dim"]) -> Float[Tensor, "image dim"]:
        pooled = patches[:, 0] if self.pool == "first" else patches.mean(dim=1)
        return functional.normalize(self.heads.image(pooled), dim=-1)


def _is_followed(name: str, form: MedForm) -> bool:
    """Whether a parameter gives vectors that are compared."""
    if name.startswith("vision."):
        return form.vision_learns
    others = ("text.cross_attentions.", "decoder.", "heads.match.", "heads.temperature")
    return not name.startswith(others)
