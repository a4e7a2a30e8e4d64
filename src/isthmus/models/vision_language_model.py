"""A frozen or trained vision encoder joined to a language model by a connector."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.core.sizes import Size
from isthmus.models.media import media_tokens, spliced_tokens
from isthmus.models.model import Model
from isthmus.models.pictures import patch_tokens
from isthmus.nn.pooling import square_side
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.fusion.media import Pictures, pictures_of_rows, pictures_seen
from isthmus.parts.fusion.newline import Newline
from isthmus.parts.fusion.splice import known_ids, splice
from isthmus.parts.language.encoder_decoder import EncoderDecoder
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.vision.encoder import VisionEncoder


@dataclass(frozen=True, kw_only=True)
class AttentionPath:
    """The way in through gated cross-attention: visual tokens are read by the text and stand nowhere in it.

    Attributes:
        connector: From patches to the visual tokens that the blocks read.
        fusion: The gated blocks inside the language model.
        name: What recipes call the connector.
        spliced_name: What recipes call the connector that is spliced beside it.
        num_markers: Places that a picture takes in the text where nothing is spliced: 1 marks where it stands, 0 marks
            nothing, so that the row's only picture is seen by all of its text.
    """

    connector: Connector
    fusion: GatedCrossAttention
    name: str = "connector"
    spliced_name: str = "connector"
    num_markers: int = 1


@final
class VisionLanguageModel(Model):
    """Pictures become visual tokens that stand among the words, or that the words read, or both.

    One forward pass: pixels -> patches (vision) -> visual tokens (connector) -> spliced among the text's embeddings at
    the placeholders, or read by gated blocks (fusion) -> hidden states (language). The output head runs later, only
    where a target stands.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        connector: Connector | None,
        language: LanguageModel | EncoderDecoder,
        placeholder_id: int,
        lora: nn.Module | None = None,
        newline: Newline | None = None,
        attention: AttentionPath | None = None,
    ) -> None:
        """Join the parts.

        Args:
            vision: From pixels to patches.
            connector: From patches to visual tokens of the language model's width, to be spliced; None splices none.
            language: The language model; an encoder-decoder one reads visual tokens in its encoder.
            placeholder_id: The token id that marks a visual token's place; virtual ids are not below
                `language.vocabulary`.
            lora: The low-rank update inside `language`, so that it can be trained by name.
            newline: Joins the tiles of pictures that are cut; None where pictures are looked at as a whole.
            attention: The way in through gated cross-attention, alone or beside splicing.

        Raises:
            ValueError: There is no way in, or both have the same name.
        """
        super().__init__()
        if connector is None and attention is None:
            raise ValueError(
                "a vision-language model needs a connector to splice, an attention path, or both"
            )
        if connector is not None and attention is not None and attention.spliced_name == attention.name:
            raise ValueError(f"both connectors are called '{attention.name}'; give them names of their own")
        self.vision = vision
        self.connector = connector
        self.language = language
        self.placeholder_id = placeholder_id
        self.newline = newline
        self.attention_connector = None if attention is None else attention.connector
        self.fusion = None if attention is None else attention.fusion
        self.num_markers = 0 if attention is None else attention.num_markers
        self._names = ("connector", "") if attention is None else (attention.spliced_name, attention.name)
        self._lora = [lora] if lora is not None else []

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `connector` (or two names), `language`; `newline`, `fusion`, `token_rows`, `lora` if there."""
        named: dict[str, nn.Module] = {"vision": self.vision}
        if self.connector is not None:
            named[self._names[0]] = self.connector
        if self.newline is not None:
            named["newline"] = self.newline
        if self.attention_connector is not None and self.fusion is not None:
            named |= {self._names[1]: self.attention_connector, "fusion": self.fusion}
        named["language"] = self.language
        if self.language.rows is not None:
            named["token_rows"] = self.language.rows
        return named | {"lora": self._lora[0]} if self._lora else named

    def inner_parts(self) -> dict[str, nn.Module]:
        """`token_embeddings`: the language model's table, which may be tied to its output head."""
        return {"token_embeddings": self.language.token_embeddings}

    def num_places(self, num_patches: int) -> int:
        """How many placeholders a picture of `num_patches` patches takes in the text.

        Raises:
            ValueError: A connector cannot take that number.
        """
        return self.num_markers if self.connector is None else self.connector.num_tokens(num_patches)

    def num_visual_tokens(self, num_patches: int) -> int:
        """How many visual tokens such a picture gives on all ways in together.

        Raises:
            ValueError: A connector cannot take that number.
        """
        connectors = (self.connector, self.attention_connector)
        return sum(connector.num_tokens(num_patches) for connector in connectors if connector is not None)

    def visual_tokens(self, batch: Batch) -> Float[Tensor, "visual_token dim"] | None:
        """All visual tokens of the batch that are spliced, in reading order, or None where there are none.

        Raises:
            ValueError: The layout promises other numbers than the connector gives.
        """
        return self._spliced(patch_tokens(self.vision, batch), batch)

    def embed(self, batch: Batch) -> Float[Tensor, "row token dim"]:
        """Embeddings of the rows with visual tokens in their places."""
        return self._embedded(patch_tokens(self.vision, batch), batch)

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[Float[Tensor, "row token dim"]]:
        """Embeddings of the rows; while this lasts, the language model's layers see the batch's pictures."""
        patches = patch_tokens(self.vision, batch)
        embeddings = self._embedded(patches, batch)
        if self.fusion is None:
            yield embeddings
            return
        with self.fusion.seeing(self._pictures(patches, batch)):
            yield embeddings

    def encode(self, batch: Batch) -> Encoded:
        """Hidden states of every position."""
        assert batch.attention_mask is not None
        with self.reading(batch) as embeddings:
            if isinstance(self.language, LanguageModel):
                return Encoded(hidden=self.language(embeddings, batch.attention_mask))
            assert batch.decoder_ids is not None
            assert batch.decoder_mask is not None
            written = (batch.decoder_ids, batch.decoder_mask)
            return Encoded(hidden=self.language(embeddings, batch.attention_mask, *written))

    def _spliced(
        self, patches: Float[Tensor, "image patch vision_dim"] | None, batch: Batch
    ) -> Float[Tensor, "visual_token dim"] | None:
        if patches is None or self.connector is None:
            return None
        if self.newline is not None:
            return self._joined(self.newline, media_tokens(self.connector, patches, _frames(batch)), batch)
        visual, given = spliced_tokens(self.connector, patches, _frames(batch))
        planned = () if batch.layout is None else batch.layout.tokens_per_image
        if any(one != other for one, other in zip(planned, given, strict=False)):
            raise ValueError(
                f"the processor planned {sorted(set(planned))} visual tokens an image, but the connector gives "
                f"{sorted(set(given))}; build both from the same recipe"
            )
        return visual

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

    def _embedded(
        self, patches: Float[Tensor, "image patch vision_dim"] | None, batch: Batch
    ) -> Float[Tensor, "row token dim"]:
        assert batch.token_ids is not None
        if self.connector is None:  # a marker has an embedding of its own
            return self.language.embed(batch.token_ids, batch.joined_ids)
        places = batch.token_ids == self.placeholder_id
        text = self.language.embed(known_ids(batch.token_ids, places), batch.joined_ids)
        visual = self._spliced(patches, batch)
        return (
            text
            if visual is None and not places.any()
            else splice(
                text=text,
                places=places,
                visual=text.new_zeros(0, text.shape[2]) if visual is None else visual,
            )
        )

    def _pictures(self, patches: Float[Tensor, "image patch vision_dim"] | None, batch: Batch) -> Pictures:
        """What the gated blocks read, sorted into rows.

        Raises:
            ValueError: The batch does not say which pictures belong to which row.
        """
        assert self.attention_connector is not None
        assert self.fusion is not None
        assert batch.token_ids is not None
        places = batch.token_ids == self.placeholder_id
        per_row: tuple[int, ...] = (0,) * len(places)
        per_image: tuple[int, ...] = ()
        if patches is None:
            visual = torch.zeros(0, 1, self.fusion.context_width, device=places.device)
        else:
            visual = media_tokens(self.attention_connector, patches, _frames(batch))
            if batch.layout is None or batch.layout.num_images != len(visual):
                raise ValueError(
                    f"the batch has {len(visual)} pictures but no layout that says which row each belongs to; "
                    "set Batch.layout"
                )
            per_row, per_image = batch.layout.images_per_row, batch.layout.tokens_per_image
        seen = pictures_seen(places, images_per_row=per_row, tokens_per_image=per_image)
        return pictures_of_rows(visual, images_per_row=per_row, seen=seen)

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


def _frames(batch: Batch) -> tuple[int, ...]:
    """Frames of each picture of the batch; empty where none is a clip."""
    return () if batch.layout is None else batch.layout.frames_per_image
