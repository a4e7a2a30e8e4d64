"""Rows to a batch: padding, picture order and the layout that says where pictures belong."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.batch import IGNORED, Batch, VisualLayout
from isthmus.core.errors import DataError
from isthmus.data.processor import Picture, Row

Side = Literal["right", "left"]


def collate(rows: Sequence[Row], *, pad_id: int, side: Side = "right") -> Batch:
    """One batch of some rows; text-only rows may stand beside rows with pictures.

    Args:
        rows: At least one.
        pad_id: Fills short rows up.
        side: Where it fills up: `right` for training, `left` for generation, so that every row ends with its last
            token.

    Raises:
        DataError: Pictures of different sizes, or stored features and pixels, meet in one batch.
    """
    pictures = [picture for row in rows for picture in row.pictures]
    pixels, features = _stacked(pictures)
    texts = [(number, ids) for number, row in enumerate(rows) for ids in row.texts]
    token_ids, mask = _padded([ids for _, ids in texts] or [row.token_ids for row in rows], pad_id, side)
    decoder_ids, decoder_mask = _padded([row.decoder_ids for row in rows], pad_id, "right")
    targets, _ = _padded([row.targets for row in rows], IGNORED, "right" if decoder_ids is not None else side)
    return Batch(
        sample_ids=tuple(row.sample_id for row in rows),
        pixels=pixels,
        features=features,
        token_ids=token_ids,
        attention_mask=mask,
        joined_ids=_joined(rows, token_ids, side),
        targets=targets,
        decoder_ids=decoder_ids,
        decoder_mask=decoder_mask,
        layout=_layout(rows, pictures),
        image_of_text=torch.tensor([number for number, _ in texts]) if texts else None,
        image_ids=tuple(picture.id for picture in pictures),
        kept=_all_or_none([row.kept for row in rows]),
        masked=_all_or_none([row.masked for row in rows]),
        labels=_all_or_none([None if row.label is None else torch.tensor(row.label) for row in rows]),
        alpha=_all_or_none([picture.alpha for picture in pictures]) if pictures else None,
    )


def _all_or_none(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One tensor of all rows' tensors; None where rows have none."""
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(known) if len(known) == len(tensors) else None


def _layout(rows: Sequence[Row], pictures: Sequence[Picture]) -> VisualLayout | None:
    sizes = [row.tokens_per_image for row in rows if row.tokens_per_image is not None]
    if len(sizes) != len(rows):
        return None
    return VisualLayout(
        images_per_row=tuple(len(size) for size in sizes),
        tokens_per_image=tuple(tokens for size in sizes for tokens in size),
        cuts=tuple(picture.cut for picture in pictures if picture.cut is not None),
        frames_per_image=tuple(1 if one.frames is None else len(one.frames) for one in pictures)
        if any(one.frames is not None for one in pictures)
        else (),
    )


def _stacked(
    pictures: Sequence[Picture],
) -> tuple[Float[Tensor, "image channel height width"] | None, Float[Tensor, "image patch dim"] | None]:
    pixels = [one for picture in pictures for one in picture.looked_at]
    features = [picture.features for picture in pictures if picture.features is not None]
    if pixels and features:
        missing = next(picture.id for picture in pictures if picture.features is None)
        raise DataError(
            f"picture {missing[:12]} is not in the feature store, but {len(features)} other(s) of its batch are; "
            "finish storing the features of this data set"
        )
    for kind in (pixels, features):
        shapes = sorted({tuple(value.shape) for value in kind})
        if len(shapes) > 1:
            raise DataError(
                f"pictures of one batch have the shapes {shapes}; expected one, so choose resize squash, crop or pad"
            )
    return (torch.stack(pixels) if pixels else None), (torch.stack(features) if features else None)


def _joined(
    rows: Sequence[Row], token_ids: Int[Tensor, "row token"] | None, side: Side
) -> Int[Tensor, "row token word"] | None:
    """Further ids of each position, -1 where there are none; None where no row has any."""
    most = max((len(more) for row in rows for more in row.joined.values()), default=0)
    if most == 0 or token_ids is None:
        return None
    joined = torch.full((*token_ids.shape, most), -1, dtype=torch.int64)
    for number, row in enumerate(rows):
        start = 0 if side == "right" else token_ids.shape[1] - len(row.token_ids or ())
        for at, more in row.joined.items():
            joined[number, start + at, : len(more)] = torch.tensor(more)
    return joined


def _padded(
    rows: Sequence[list[int] | None], filler: int, side: Side
) -> tuple[Int[Tensor, "row token"] | None, Bool[Tensor, "row token"] | None]:
    known = [row for row in rows if row is not None]
    if len(known) != len(rows):
        return None, None
    longest = max(len(row) for row in known)
    padded = torch.full((len(known), longest), filler, dtype=torch.int64)
    mask = torch.zeros((len(known), longest), dtype=torch.bool)
    for number, row in enumerate(known):
        span = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        padded[number, span] = torch.tensor(row, dtype=torch.int64)
        mask[number, span] = True
    return padded, mask
