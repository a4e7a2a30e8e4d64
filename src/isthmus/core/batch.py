"""What travels from data to models: a batch of rows, already decoded, tokenised and padded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.tiling import Cut

IGNORED = -100
"""The target of positions that carry no loss."""


@dataclass(frozen=True, kw_only=True)
class VisualLayout:
    """How many images each row has and how many visual tokens each image gives, in reading order.

    The processor writes it, the model checks it, so that the two cannot disagree silently.

    Attributes:
        images_per_row: Images of each row.
        tokens_per_image: Visual tokens of each image.
        cuts: How each image was cut into tiles; empty where images are not cut.
        frames_per_image: Frames of each image where some are clips; empty where each is a single picture.
    """

    images_per_row: tuple[int, ...]
    tokens_per_image: tuple[int, ...]
    cuts: tuple[Cut, ...] = ()
    frames_per_image: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert sum(self.images_per_row) == len(self.tokens_per_image)
        assert len(self.cuts) in (0, len(self.tokens_per_image))
        assert len(self.frames_per_image) in (0, len(self.tokens_per_image))
        assert not (self.cuts and self.frames_per_image)

    @property
    def num_images(self) -> int:
        """Images in the whole batch."""
        return len(self.tokens_per_image)

    @property
    def parts_per_image(self) -> tuple[int, ...]:
        """What the vision encoder sees of each image, where that is not one picture: its tiles, or a clip's frames."""
        return tuple(cut.num_tiles for cut in self.cuts) or self.frames_per_image


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that one forward pass sees. What a model does not need is None.

    Attributes:
        sample_ids: One name a row, for messages and tables.
        pixels: Pictures as the vision encoder expects them, in reading order over all rows; where pictures are cut or
            are clips, the tiles or frames of the first, then those of the second, and so on.
        features: What the frozen vision encoder gave for these pictures, read from the feature store instead of pixels.
        token_ids: Token ids; every visual token has its own placeholder position when a layout is given.
        attention_mask: True where a token stands, False on padding.
        joined_ids: Further ids of positions whose vector is that of several words, -1 where there are none.
        targets: For each position the id that should stand *there* (not shifted), or `IGNORED`; of the decoder's side
            where there is one.
        decoder_ids: What the decoder of an encoder-decoder model reads: its start token and what it writes; `token_ids`
            are then the encoder's.
        decoder_mask: True where the decoder's side has a token.
        layout: Where the images belong.
        image_of_text: For each text the row of its picture, where a picture has several; None where text i
            belongs to row i.
        image_ids: One hash or name a picture; equal names are the same picture (duplicates in a contrastive batch).
        kept: For each picture the patches that the vision encoder sees, by place in the flattened grid; None: all.
        masked: True where a patch is hidden and to be predicted.
        alpha: For each picture which pixels its text is about, in the vision encoder's own normalisation.
        labels: The class of each picture.
    """

    sample_ids: tuple[str, ...]
    pixels: Float[Tensor, "image channel height width"] | None = None
    features: Float[Tensor, "image patch dim"] | None = None
    token_ids: Int[Tensor, "row token"] | None = None
    attention_mask: Bool[Tensor, "row token"] | None = None
    joined_ids: Int[Tensor, "row token word"] | None = None
    targets: Int[Tensor, "row target"] | None = None
    decoder_ids: Int[Tensor, "row target"] | None = None
    decoder_mask: Bool[Tensor, "row target"] | None = None
    layout: VisualLayout | None = None
    image_of_text: Int[Tensor, " text"] | None = None
    image_ids: tuple[str, ...] = ()
    kept: Int[Tensor, "image kept"] | None = None
    masked: Bool[Tensor, "image patch"] | None = None
    alpha: Float[Tensor, "image 1 height width"] | None = None
    labels: Int[Tensor, " image"] | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on `device`."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    @property
    def num_images(self) -> int:
        """Pictures in the batch, as pixels, as tiles, as clips or as stored features."""
        if self.layout is not None and self.layout.parts_per_image:
            return self.layout.num_images
        pictures = self.pixels if self.pixels is not None else self.features
        return 0 if pictures is None else pictures.shape[0]

    @property
    def num_supervised(self) -> int:
        """Positions whose target is predicted: the first position of a row has nothing before it and never counts."""
        return 0 if self.targets is None else int((self.targets[:, 1:] != IGNORED).sum())


def next_pictures(batch: Batch) -> list[int]:
    """For each picture the next one of the batch that takes as many visual tokens, round in a circle.

    A picture that no other equals in tokens stands for itself; that happens only where pictures are cut into tiles.
    """
    tokens = batch.layout.tokens_per_image if batch.layout is not None else (0,) * batch.num_images
    alike = defaultdict(list)
    for number, count in enumerate(tokens):
        alike[count].append(number)
    following = {
        one: group[(at + 1) % len(group)] for group in alike.values() for at, one in enumerate(group)
    }
    return [following[number] for number in range(len(tokens))]


def exchange_pictures(batch: Batch, order: Sequence[int]) -> Batch:
    """The same rows with picture `i` replaced by picture `order[i]` of the batch (for controls).

    Raises:
        ValueError: A picture would be replaced by one with another number of visual tokens.
    """
    layout, index = batch.layout, torch.as_tensor(order)
    if layout is not None and layout.parts_per_image:
        if any(layout.tokens_per_image[one] != layout.tokens_per_image[at] for at, one in enumerate(order)):
            raise ValueError(
                "pictures with different numbers of visual tokens cannot be exchanged within a batch"
            )
        index = _parts_in_order(layout.parts_per_image, order)
        layout = replace(
            layout,
            cuts=tuple(layout.cuts[one] for one in order if layout.cuts),
            frames_per_image=tuple(layout.frames_per_image[one] for one in order if layout.frames_per_image),
        )
    return replace(
        batch,
        layout=layout,
        pixels=None if batch.pixels is None else batch.pixels[index],
        features=None if batch.features is None else batch.features[index],
        alpha=None if batch.alpha is None else batch.alpha[index],
        image_ids=tuple(batch.image_ids[i] for i in order) if batch.image_ids else (),
    )


def _parts_in_order(counts: Sequence[int], order: Sequence[int]) -> Int[Tensor, " part"]:
    """Places of the tiles or frames of pictures `order`, where those of all pictures lie one after another."""
    ends = list(accumulate(counts))
    return torch.tensor([part for one in order for part in range(ends[one] - counts[one], ends[one])])
