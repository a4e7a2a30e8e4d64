"""The model of a recipe: which parts it has and how they are assembled."""

from typing import Annotated, Literal

from pydantic import Field

from isthmus.config.base import Count, Positive, Settings
from isthmus.config.joining import Connector, Fusion, ImageHead
from isthmus.config.language import Language, PretrainedLanguage, TransformerText
from isthmus.config.tiles import Tiles
from isthmus.config.vision import Vision

_INSIDE_LANGUAGE = {"token_embeddings": "language"}


class VisionLanguageModel(Settings):
    """A vision encoder and a language model, joined by a connector and a fusion."""

    kind: Literal["vision_language_model"] = "vision_language_model"
    vision: Vision
    """Image to patches."""
    connector: Connector
    """Patches to visual tokens."""
    fusion: Fusion = Fusion()
    """Where visual tokens meet the text."""
    language: Language
    """The causal language model."""
    tiles: Tiles | None = None
    """Pictures of any size cut into tiles; null: each picture as one."""
    weights: str | None = None
    """A Hugging Face LLaVA or LLaVA-NeXT (folder or hub name): all parts start from it, and the names under `vision`
    and `language` only say their architecture; or a `.safetensors` file with LLaVA's `mm_projector` keys, from which
    the connector alone starts; null: each part from its own."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze; splicing has nothing to learn."""
        newline = ("newline",) if self.tiles is not None else ()
        return ("vision", "connector", *newline, *_language_parts(self.language))

    @property
    def inner_parts(self) -> dict[str, str]:
        """What a stage can keep frozen inside a part that it trains, and that part."""
        return _INSIDE_LANGUAGE


class DualEncoder(Settings):
    """An image encoder and a text encoder that meet in one space (CLIP, Radford et al., 2021)."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    vision: Vision
    """Image to patches."""
    image_head: ImageHead
    """Patches to one vector."""
    text: TransformerText
    """Text to one vector."""
    embed_dim: Count
    """Entries of the vectors that are compared."""
    scale_init: Positive = 14.285714285714286
    """What similarities are multiplied by at the start; 1 / 0.07 as in CLIP; learned as the part `scale`."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "image_head", "text", "scale")

    @property
    def inner_parts(self) -> dict[str, str]:
        """Nothing is named inside its parts."""
        return {}


class LanguageModel(Settings):
    """A language model alone, trained on text."""

    kind: Literal["language_model"] = "language_model"
    language: Language
    """The causal language model."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return _language_parts(self.language)

    @property
    def inner_parts(self) -> dict[str, str]:
        """What a stage can keep frozen inside a part that it trains, and that part."""
        return _INSIDE_LANGUAGE


def _language_parts(language: Language) -> tuple[str, ...]:
    has_lora = isinstance(language, PretrainedLanguage) and language.lora is not None
    return ("language", "lora") if has_lora else ("language",)


Model = Annotated[VisionLanguageModel | DualEncoder | LanguageModel, Field(discriminator="kind")]
"""What a recipe builds."""
