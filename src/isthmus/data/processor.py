"""From a sample to a row: pictures prepared or looked up, text rendered and tokenised."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.protocols import StoredFeatures
from isthmus.core.sizes import Size
from isthmus.core.tiling import Cut
from isthmus.data.clips import ClipImage
from isthmus.data.images import ImageProcessor
from isthmus.data.rows import RowKind, prompt_of, turns_of
from isthmus.data.samples import ImagePart, ImageRef, Sample, Turn
from isthmus.data.text import EncodedText, TextCodec
from isthmus.data.tiles import Tiler
from isthmus.data.two_sides import SideSplit
from isthmus.nn.pooling import square_side

Purpose = Literal["training", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a row: its pixels, its tiles, or what the frozen vision encoder gave for it.

    Attributes:
        id: Its name in the feature store.
        pixels: The picture, where it is not cut.
        features: Stored features.
        tiles: Thumbnail and tiles, where it is cut.
        cut: How it was cut.
        frames: The frames of a clip.
        size: Its own height and width, before it was prepared; None where it was not decoded.
        alpha: Which part of it is meant, where the vision encoder reads that.
    """

    id: str
    pixels: Float[Tensor, "channel height width"] | None = None
    features: Float[Tensor, "patch dim"] | None = None
    tiles: Float[Tensor, "tile channel height width"] | None = None
    cut: Cut | None = None
    frames: Float[Tensor, "frame channel height width"] | None = None
    size: Size | None = None
    alpha: Float[Tensor, "1 height width"] | None = None

    @property
    def looked_at(self) -> tuple[Float[Tensor, "channel height width"], ...]:
        """What the vision encoder sees: the picture, its tiles, or frames; nothing where features are stored."""
        several = self.tiles if self.tiles is not None else self.frames
        if several is not None:
            return tuple(several)
        return () if self.pixels is None else (self.pixels,)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row before padding.

    Attributes:
        sample_id: The sample's name.
        pictures: In reading order of the row; a picture that occurs twice is there twice.
        token_ids: None for pictures alone, and where there are `texts`.
        texts: Several texts that all belong to the row's picture.
        targets: None where nothing is predicted.
        decoder_ids: What an encoder-decoder model writes, after its start token; `token_ids` are then its encoder's.
        tokens_per_image: Visual tokens of each picture; None where text and pictures do not meet in one sequence.
        truncated: Whether text was cut off.
        joined: Further ids of positions whose vector is that of several words.
        kept: Which patches of the row's picture are seen; None: all.
        masked: True where a patch of it is hidden and to be predicted.
        label: The number of its class.
    """

    sample_id: str
    pictures: tuple[Picture, ...] = ()
    token_ids: list[int] | None = None
    texts: tuple[list[int], ...] = ()
    targets: list[int] | None = None
    decoder_ids: list[int] | None = None
    tokens_per_image: tuple[int, ...] | None = None
    truncated: bool = False
    joined: Mapping[int, Sequence[int]] = field(default_factory=dict)
    kept: Int[Tensor, " kept"] | None = None
    masked: Bool[Tensor, " patch"] | None = None
    label: int | None = None


class PictureReader:
    """Prepares pictures, or finds their stored features so that only the file's bytes are read and hashed.

    Args:
        images: Prepares decoded pictures.
        stored: Outputs of the frozen vision encoder; pictures that are not in it are decoded.
        tiler: Cuts pictures into tiles; None looks at each as a whole.
        max_frames: Most frames of a clip; 0 takes none, None any number.
    """

    def __init__(
        self,
        *,
        images: ImageProcessor,
        stored: StoredFeatures | None = None,
        tiler: Tiler | None = None,
        max_frames: int | None = 0,
    ) -> None:
        self.images = images
        self.stored = stored
        self.tiler = tiler
        self.max_frames = max_frames

    def __call__(self, image: ImageRef) -> Picture:
        """One picture.

        Raises:
            BadSample: The picture is missing, damaged, too large, or of a size that is not accepted.
            DataError: A clip has more frames than the model takes.
        """
        name = image.digest()
        if isinstance(image, ClipImage):
            return Picture(id=name, frames=self._frames(image))
        if self.stored is not None and name in self.stored:
            return Picture(id=name, features=self.stored.read(name))
        if self.tiler is not None:
            tiles, cut = self.tiler(image.picture())
            return Picture(id=name, tiles=tiles, cut=cut)
        picture = image.picture()
        size = Size(picture.height, picture.width)
        return Picture(id=name, pixels=self.images(picture, image.name), size=size)

    def _frames(self, clip: ClipImage) -> Float[Tensor, "frame channel height width"]:
        if self.max_frames is not None and len(clip.frames) > self.max_frames:
            raise DataError(
                f"{clip.name} has {len(clip.frames)} frames, but this model takes {self.max_frames or 'no clips'}; "
                "raise connector.frames of the perceiver_resampler, or take clips of fewer frames"
            )
        return torch.stack([self.images(frame.picture(), frame.name) for frame in clip.frames])


class Processor(ABC):
    """Makes rows for one kind of model.

    Attributes:
        pad_id: The token id that fills rows up.
    """

    pad_id: int

    @abstractmethod
    def row(self, sample: Sample, *, rows: RowKind, choice: int, purpose: Purpose = "training") -> Row:
        """One row.

        Args:
            sample: What it is made from.
            rows: What the sample is read as.
            choice: Which caption or text is taken.
            purpose: `training` with targets, or `prompt`: what comes before the answer.

        Raises:
            BadSample: A picture cannot be used.
            DataError: The sample has nothing of this kind, or does not fit into the context.
        """


@final
class VisionLanguageProcessor(Processor):
    """Rows for a vision-language model: pictures as runs of placeholders within the text.

    Args:
        pictures: Prepares pictures.
        codec: Renders and tokenises.
        tokens_per_image: Visual tokens the connector gives for each picture, or for each tile of one: then a square
            number, as tiles are joined row by row.
        for_each_frame: Whether a clip takes so many for each of its frames.
        prompt: What is asked beside the pictures of caption rows.
        sides: Puts text on the two sides of an encoder-decoder language model; None for a causal one.
    """

    def __init__(
        self,
        *,
        pictures: PictureReader,
        codec: TextCodec,
        tokens_per_image: int,
        for_each_frame: bool = False,
        prompt: str | None = None,
        sides: SideSplit | None = None,
    ) -> None:
        self.pictures = pictures
        self.for_each_frame = for_each_frame
        self.codec = codec
        self.tokens_per_image = tokens_per_image
        self.prompt = prompt
        self.sides = sides
        self.pad_id = codec.pad_id

    def row(self, sample: Sample, *, rows: RowKind, choice: int, purpose: Purpose = "training") -> Row:
        """One row; only the pictures that its text names are read.

        Raises:
            BadSample: A picture cannot be used.
            DataError: The sample has nothing of this kind, or does not fit into the context.
        """
        turns = _turns(sample, rows, choice, purpose, self.prompt)
        named = {part.index for turn in turns for part in turn.parts if isinstance(part, ImagePart)}
        pictures = {index: self.pictures(sample.images[index]) for index in sorted(named)}
        sizes = [self._num_tokens(pictures[at]) if at in pictures else 0 for at in range(len(sample.images))]
        targets, decoder_ids = None, None
        if self.sides is None:
            text = _encoded(self.codec, sample, turns, rows, purpose, sizes)
            targets = text.targets if purpose == "training" else None
        elif purpose == "prompt":
            text = self.sides.prompt(self.codec, turns, tokens_per_image=sizes, origin=sample.origin).asked
        else:
            both = self.sides.training(
                self.codec,
                turns,
                tokens_per_image=sizes,
                origin=sample.origin,
                choice=choice,
                is_caption=rows == "captions",
            )
            text, targets, decoder_ids = both.asked, both.targets, both.written
        return Row(
            sample_id=sample.id,
            pictures=tuple(pictures[index] for index in text.images),
            token_ids=text.ids,
            targets=targets,
            decoder_ids=decoder_ids,
            tokens_per_image=tuple(sizes[index] for index in text.images),
            truncated=text.truncated,
            joined=text.joined,
        )

    def _num_tokens(self, picture: Picture) -> int:
        if picture.frames is not None and self.for_each_frame:
            return self.tokens_per_image * len(picture.frames)
        if picture.cut is None:
            return self.tokens_per_image
        side = square_side(self.tokens_per_image)
        return picture.cut.num_tokens(Size(height=side, width=side))


@final
class LanguageProcessor(Processor):
    """Rows for a language model alone: text without pictures, every word supervised or only the answers.

    Args:
        codec: Renders and tokenises.
    """

    def __init__(self, *, codec: TextCodec) -> None:
        self.codec = codec
        self.pad_id = codec.pad_id

    def row(
        self, sample: Sample, *, rows: RowKind = "text", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One row of text.

        Raises:
            DataError: The sample has no text, or a prompt does not fit into the context.
        """
        turns = _turns(sample, rows, choice, purpose, None)
        text = _encoded(self.codec, sample, turns, rows, purpose, [0] * len(sample.images))
        targets = text.targets if purpose == "training" else None
        return Row(
            sample_id=sample.id,
            token_ids=text.ids,
            targets=targets,
            truncated=text.truncated,
            joined=text.joined,
        )


def _turns(
    sample: Sample, rows: RowKind, choice: int, purpose: Purpose, prompt: str | None
) -> tuple[Turn, ...]:
    turns = turns_of(sample, rows=rows, choice=choice, prompt=prompt)
    return prompt_of(turns) if purpose == "prompt" else turns


def _encoded(
    codec: TextCodec,
    sample: Sample,
    turns: tuple[Turn, ...],
    rows: RowKind,
    purpose: Purpose,
    tokens_per_image: list[int],
) -> EncodedText:
    meaning = "text" if rows == "text" and purpose == "training" else purpose
    return codec.encode(turns, tokens_per_image=tokens_per_image, origin=sample.origin, purpose=meaning)
