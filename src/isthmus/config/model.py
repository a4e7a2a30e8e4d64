"""The model of a recipe: which parts it has and how they are assembled."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Mistake, ModelSettings, one_of, refuse
from isthmus.config.classifier import Classifier
from isthmus.config.dual import DualEncoder
from isthmus.config.joining import Connector, CrossAttention, Fusion, Path, Placeholder, Splice
from isthmus.config.language import EncoderDecoderLanguage, Language, LlamaLanguage, PretrainedLanguage
from isthmus.config.masked import MaskedImageModel, VisualTokenizer
from isthmus.config.med import Med
from isthmus.config.qformer import QFormerPretrainer
from isthmus.config.resampling import FrameTransformer, MappingMlp, PerceiverResampler
from isthmus.config.tiles import Tiles
from isthmus.config.vision import Vision

_INSIDE_LANGUAGE = {"token_embeddings": "language"}
_PART_WORDS = ("vision", "connector", "fusion", "language", "lora", "newline", "token_rows")


class VisionLanguageModel(ModelSettings):
    """A vision encoder and a language model, joined by a connector and a fusion, or by two of each."""

    kind: Literal["vision_language_model"] = "vision_language_model"
    vision: Vision
    """Image to patches."""
    connector: Connector | None = None
    """Patches to visual tokens; null: `paths` has the connectors."""
    fusion: Fusion = Splice()
    """Where visual tokens meet the text."""
    paths: dict[str, Path] = {}
    """Two ways in, one by splice and one by cross_attention, in place of `connector` and `fusion`; a stage trains each
    path's connector by the path's name."""
    language: Language
    """The causal language model, or an encoder-decoder one."""
    tiles: Tiles | None = None
    """Pictures of any size cut into tiles; null: each picture as one."""
    weights: str | None = None
    """A Hugging Face LLaVA, LLaVA-NeXT or BLIP-2 (folder or hub name): all parts start from it, and the names under
    `vision` and `language` only say their architecture; or a `.safetensors` file with LLaVA's `mm_projector` keys,
    LAVIS' keys or OpenFlamingo's, from which only the parts start that it holds; null: each part from its own."""

    @property
    def ways(self) -> dict[str, Path]:
        """The ways into the language model by the names of their connectors."""
        if self.connector is None:
            return self.paths
        return {"connector": Path(connector=self.connector, fusion=self.fusion)}

    @property
    def splice(self) -> tuple[str, Path] | None:
        """The way that puts visual tokens into the text, with its name."""
        return next(
            ((name, path) for name, path in self.ways.items() if isinstance(path.fusion, Splice)), None
        )

    @property
    def attention(self) -> tuple[str, Path, CrossAttention] | None:
        """The way by gated cross-attention, with its name and fusion."""
        return next(
            (
                (name, path, path.fusion)
                for name, path in self.ways.items()
                if isinstance(path.fusion, CrossAttention)
            ),
            None,
        )

    @property
    def placeholder(self) -> Placeholder:
        """How the places of pictures are written; markers are virtual ids with rows of their own."""
        way = self.splice
        return (
            way[1].fusion.placeholder if way is not None and isinstance(way[1].fusion, Splice) else "virtual"
        )

    @property
    def has_markers(self) -> bool:
        """Whether `<image>` and `<|endofchunk|>` have trained rows."""
        return self.splice is None and self.attention is not None and self.attention[2].marker != "none"

    @property
    def max_frames(self) -> int | None:
        """Most frames of a clip that every way in takes; 0 where one takes single pictures alone, None for no bound."""
        bounds = [_most_frames(way) for way in self.ways.values()]
        return min((bound for bound in bounds if bound is not None), default=None)

    @property
    def has_tokens_of_frames(self) -> bool:
        """Whether each frame of a clip takes places of its own in the text."""
        return self.splice is not None and isinstance(self.splice[1].connector, MappingMlp | FrameTransformer)

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze; splicing has nothing to learn."""
        blocks = ("fusion",) if self.attention is not None else ()
        language = _language_parts(self.language)
        rows = ("token_rows",) if self.has_markers else ()
        newline = ("newline",) if self.tiles is not None else ()
        return ("vision", *self.ways, *newline, *blocks, language[0], *rows, *language[1:])

    @model_validator(mode="after")
    def _check_ways(self) -> Self:
        if self.attention is not None and isinstance(self.language, EncoderDecoderLanguage):
            allowed = "a causal language model, because gated blocks stand between its decoder layers"
            refuse([Mistake(path=("language", "kind"), found="'encoder_decoder'", allowed=allowed)])
        if not self.paths:
            if self.connector is None:
                allowed = "a connector, or paths with connectors of their own"
                refuse([Mistake(path=("connector",), found="nothing", allowed=allowed)])
            if self.splice is None:
                refuse(self._only_spliced())
            return self
        mistakes = self._only_spliced()
        if self.connector is not None:
            allowed = "null, because paths has the connectors"
            mistakes.append(Mistake(path=("connector",), found="a connector", allowed=allowed))
        if self.fusion != Splice():
            allowed = "nothing, because each of paths has its own"
            mistakes.append(Mistake(path=("fusion",), found="a fusion", allowed=allowed))
        for name in self.paths:
            if name in _PART_WORDS or not name.isidentifier():
                allowed = f"a word other than {one_of(_PART_WORDS)}"
                mistakes.append(Mistake(path=("paths", name), found=f"'{name}'", allowed=allowed))
        kinds = sorted(path.fusion.kind for path in self.paths.values())
        if kinds != ["cross_attention", "splice"]:
            allowed = "one path by splice and one by cross_attention; a single way needs no paths"
            mistakes.append(Mistake(path=("paths",), found=one_of(kinds), allowed=allowed))
        elif self.attention is not None and self.attention[2].marker is not None:
            allowed = "null, because the spliced tokens mark where a picture stands"
            place = ("paths", self.attention[0], "fusion", "marker")
            mistakes.append(Mistake(path=place, found=f"'{self.attention[2].marker}'", allowed=allowed))
        refuse(mistakes)
        return self

    @model_validator(mode="after")
    def _check_quantized(self) -> Self:
        if (
            isinstance(self.language, PretrainedLanguage)
            and self.language.quantize
            and self.weights is not None
        ):
            allowed = (
                "null, because model.weights fills whole matrices; name the language model's own for nf4"
            )
            refuse(
                [Mistake(path=("language", "quantize"), found=f"'{self.language.quantize}'", allowed=allowed)]
            )
        return self

    def _only_spliced(self) -> list[Mistake]:
        """What goes with one connector and splice alone."""
        alone = "null, because this goes with one connector and splice alone"
        mistakes = [Mistake(path=("tiles",), found="tiles", allowed=alone)] if self.tiles else []
        is_flamingo = not self.paths and self.weights is not None and self.weights.endswith(".safetensors")
        if self.weights is not None and not is_flamingo:
            allowed = alone if self.paths else "null, or a .safetensors file with OpenFlamingo's keys"
            mistakes.append(Mistake(path=("weights",), found=f"'{self.weights}'", allowed=allowed))
        return mistakes

    @property
    def inner_parts(self) -> dict[str, str]:
        """What a stage can keep frozen inside a part that it trains, and that part."""
        return _INSIDE_LANGUAGE


class LanguageModel(ModelSettings):
    """A language model alone, trained on text."""

    kind: Literal["language_model"] = "language_model"
    language: Annotated[LlamaLanguage | PretrainedLanguage, Field(discriminator="kind")]
    """The causal language model."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return _language_parts(self.language)

    @property
    def inner_parts(self) -> dict[str, str]:
        """What a stage can keep frozen inside a part that it trains, and that part."""
        return _INSIDE_LANGUAGE


def _most_frames(way: Path) -> int | None:
    match way.connector:
        case PerceiverResampler():
            return way.connector.frames or 0
        case MappingMlp() | FrameTransformer() if isinstance(way.fusion, Splice):
            return None  # without learned positions no frame is one too many
        case _:
            return 0


def _language_parts(language: Language) -> tuple[str, ...]:
    has_lora = isinstance(language, PretrainedLanguage) and language.lora is not None
    return ("language", "lora") if has_lora else ("language",)


Model = Annotated[
    VisionLanguageModel
    | DualEncoder
    | LanguageModel
    | MaskedImageModel
    | VisualTokenizer
    | Classifier
    | QFormerPretrainer
    | Med,
    Field(discriminator="kind"),
]
"""What a recipe builds."""
