"""Splice: visual tokens take the places of placeholders among the text's embeddings (Liu et al., 2023, section 4.1)."""

from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


def splice(
    *,
    text: Float[Tensor, "row token dim"],
    places: Bool[Tensor, "row token"],
    visual: Float[Tensor, "visual_token dim"],
) -> Float[Tensor, "row token dim"]:
    """Replace the embedding at every place by the next visual token, in reading order.

    Args:
        text: Embeddings of the whole sequences.
        places: True where a placeholder stands.
        visual: Visual tokens of all images of the batch, in reading order.

    Raises:
        ValueError: There are more or fewer placeholders than visual tokens. Scattering anyway would silently put a
            picture's tokens into another row.
    """
    num_places = int(places.sum())
    if num_places != visual.shape[0]:
        raise ValueError(
            f"the rows have {num_places} image placeholders but their images give {visual.shape[0]} visual tokens; "
            "the processor and the connector disagree"
        )
    return text.masked_scatter(rearrange(places, "row token -> row token 1"), visual.to(text.dtype))


def known_ids(
    token_ids: Int[Tensor, "row token"], places: Bool[Tensor, "row token"]
) -> Int[Tensor, "row token"]:
    """The ids with placeholders replaced by 0, so that a virtual placeholder never reaches the embedding table."""
    return token_ids.masked_fill(places, 0)
