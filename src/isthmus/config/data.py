"""Where samples come from: the named sources of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.academic import AcademicSource
from isthmus.config.base import Count, Fraction, Mistake, Positive, Settings, refuse

Rows = Literal[
    "captions", "questions", "conversations", "text", "text_answers", "regions", "pictures", "classes"
]
"""What a sample is read as; `text` rows have no pictures, `regions` rows say something of one marked part of theirs."""


class ShardSource(Settings):
    """Tar files in WebDataset form: members of one sample share a name and differ in their ending."""

    kind: Literal["shards"] = "shards"
    files: str
    """A path or a glob pattern of tar files; `${shared}` is the shared folder."""
    exchanged: Fraction = 0.0
    """Share of the captions that change places with those of other pictures, drawn by `seed`: noise that is known, to
    measure what a filter finds and what learning bears."""
    seed: int = 0
    """Which captions are exchanged."""


class FolderSource(Settings):
    """A folder of pictures with a table of captions, or with a text file beside each picture."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder."""
    table: str | None = None
    """CSV, TSV or JSONL inside the folder; null: `x.jpg` has its caption in `x.txt`."""


class LlavaSource(Settings):
    """Conversations as LLaVA publishes them: one JSON list, pictures in a folder."""

    kind: Literal["llava_json"] = "llava_json"
    file: str
    """The JSON file."""
    images: str
    """The folder its `image` entries are relative to."""


class SceneSource(Settings):
    """The built-in world of drawn scenes: a pure function of split, seed and index."""

    kind: Literal["scenes"] = "scenes"
    split: Literal["train", "val", "test"]
    """The splits are disjoint in compositions: held-out (colour, shape) pairs never occur in training."""
    num_samples: Count
    """How many scenes the source has."""
    image_size: Count = 64
    """Height and width of a scene in pixels; the shorter side where `aspect` lets them differ."""
    aspect: Annotated[tuple[Positive, Positive], Field(strict=False)] = (1.0, 1.0)
    """The least and the greatest width over height, within 1/3 and 3; drawn evenly on a log scale."""
    colourless: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of scenes in free colours; texts name none, so that shapes are learned for themselves."""
    shapeless: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of scenes with coloured lumps for shapes and texts that name no shape, so that colours are, too."""
    exchanged: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the colours and shapes of `text_answers` that are words for what is never drawn."""
    counting: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of scenes made for a question of how many there are, beside the usual ones; counts are learned slowest."""
    single: Literal["colour", "shape"] | None = None
    """Scenes of one thing each, whose shape or colour is the sample's class (for zero_shot and probe); null: one to
    four things and no class."""
    seed: int = 0
    """Which world; the same seed gives the same scenes on every machine."""

    @model_validator(mode="after")
    def _check_single(self) -> Self:
        variants = ("colourless", "shapeless", "exchanged", "counting")
        refuse(
            [
                Mistake(
                    path=(name,),
                    found=str(getattr(self, name)),
                    allowed="0.0, because single draws one thing",
                )
                for name in variants
                if self.single is not None and getattr(self, name)
            ]
        )
        return self


class ClipSource(Settings):
    """Short films of the built-in world: one thing crosses the canvas (for connectors with `frames`)."""

    kind: Literal["clips"] = "clips"
    split: Literal["train", "val", "test"]
    """The splits are disjoint in compositions, as those of `scenes` are."""
    num_samples: Count
    """How many clips the source has."""
    frames: Annotated[int, Field(ge=2, le=16)] = 4
    """Frames of each clip, evenly spaced in time."""
    image_size: Count = 64
    """Height and width of a frame in pixels."""
    seed: int = 0
    """Which world."""


class MixturePart(Settings):
    """One source of a mixture."""

    weight: Positive = 1.0
    """How often each sample occurs; 0.5 takes every second one."""
    cap: Count | None = None
    """Most different samples that are taken, drawn by seed; null: all."""
    rows: Literal["captions", "questions", "conversations", "text_answers"] = "conversations"
    """What its samples are read as; `text_answers` are conversations without pictures."""
    prompt: str | None = None
    """What is asked beside the pictures of captions; null: nothing."""


class MixtureSource(Settings):
    """Other sources of the recipe as one, read by a stage as `rows: conversations`."""

    kind: Literal["mixture"] = "mixture"
    parts: Annotated[dict[str, MixturePart], Field(min_length=1)]
    """Names of sources, each with what is taken of it."""
    seed: int = 0
    """Which samples a cap keeps, which captions are taken, and the order."""


Source = Annotated[
    ShardSource | FolderSource | LlavaSource | SceneSource | ClipSource | MixtureSource | AcademicSource,
    Field(discriminator="kind"),
]
"""One named source of samples."""
