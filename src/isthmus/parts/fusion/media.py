"""Which picture each position of a text sees: the last one that began before it (Alayrac et al., 2022, 3.1.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of some rows and where in the text they are seen.

    Attributes:
        tokens: Visual tokens; rows with fewer pictures are filled up with zeros that nobody sees.
        seen: For each position the number of the picture it sees, counted from 1; 0 sees none.
    """

    tokens: Float[Tensor, "row picture token dim"]
    seen: Int[Tensor, "row position"]


def pictures_of_rows(
    tokens: Float[Tensor, "picture token dim"],
    *,
    images_per_row: Sequence[int],
    seen: Int[Tensor, "row position"],
) -> Pictures:
    """Sort visual tokens in reading order into their rows."""
    most = max(images_per_row, default=0)
    in_rows = tokens.new_zeros(len(images_per_row), most, *tokens.shape[1:])
    held = torch.tensor(images_per_row, device=tokens.device).unsqueeze(1)
    places = rearrange(torch.arange(most, device=tokens.device) < held, "row picture -> row picture 1 1")
    return Pictures(tokens=in_rows.masked_scatter(places, tokens), seen=seen)


def pictures_seen(
    places: Bool[Tensor, "row position"], *, images_per_row: Sequence[int], tokens_per_image: Sequence[int]
) -> Int[Tensor, "row position"]:
    """The number of the last picture that began at or before each position, counted from 1 in each row; 0 before any.

    A picture's own placeholder sees it already (OpenFlamingo). Padding, on whichever side, changes no other position.

    Args:
        places: True where a placeholder stands.
        images_per_row: Pictures of each row.
        tokens_per_image: Placeholders of each picture, in reading order over all rows; pictures without
            placeholders are seen by their whole row.

    Raises:
        ValueError: There are more or fewer placeholders than the pictures have.
        DataError: A row has several pictures without placeholders, so that nothing says which text sees which.
    """
    if tokens_per_image and not any(tokens_per_image):
        if max(images_per_row) > 1:
            raise DataError(
                f"a row has {max(images_per_row)} pictures, but this model marks none in the text, so that every "
                "word sees the same one; use rows of one picture, or model.fusion.marker: trained"
            )
        held = torch.tensor(images_per_row, device=places.device).unsqueeze(1)
        return held.expand(places.shape)
    flat = places.flatten().nonzero().squeeze(1)
    if len(flat) != sum(tokens_per_image):
        raise ValueError(
            f"the rows have {len(flat)} image placeholders, but their layout has {sum(tokens_per_image)}; "
            "the processor and the model disagree"
        )
    sizes = torch.tensor(tokens_per_image, dtype=torch.long, device=places.device)
    begins = torch.zeros_like(places, dtype=torch.long).flatten()
    begins[flat[sizes.cumsum(0) - sizes]] = 1
    return begins.reshape(places.shape).cumsum(dim=1)
