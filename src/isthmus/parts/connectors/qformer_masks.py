"""Which positions of [queries, text] may read which: BLIP-2's three masks (Li et al., 2023, Figure 2)."""

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor


def full(
    num_queries: int, there: Bool[Tensor, "text token"], *, causal: bool = False
) -> Bool[Tensor, "text position position"]:
    """Matching: queries and words all read each other; padding is read by nobody.

    Args:
        num_queries: Queries, which stand first.
        there: True where a word stands, False on padding.
        causal: Words read only themselves and earlier words, and queries read no words.
    """
    length = num_queries + there.shape[1]
    queries = there.new_ones(there.shape[0], num_queries)
    read = rearrange(torch.cat([queries, there], dim=1), "text position -> text 1 position")
    allowed = read.expand(-1, length, -1)
    if not causal:
        return allowed
    past = torch.ones(length, length, dtype=torch.bool, device=there.device).tril()
    past[:num_queries, :num_queries] = True
    return allowed & past


def multimodal_causal(
    num_queries: int, there: Bool[Tensor, "text token"]
) -> Bool[Tensor, "text position position"]:
    """Captioning: queries read queries; a word reads all queries, itself and earlier words (UniLM's mask)."""
    return full(num_queries, there, causal=True)


def behind_earlier(
    num_queries: int, token_ids: Int[Tensor, "text token"], *, num_earlier: int
) -> Bool[Tensor, "text token position"]:
    """Words that follow earlier ones of the same captions: each reads all queries, all earlier words and itself.

    Args:
        num_queries: Queries, which stand first.
        token_ids: As many in each text: nothing is padding.
        num_earlier: Words between the queries and these.
    """
    texts, tokens = token_ids.shape
    there = torch.ones(texts, num_earlier + tokens, dtype=torch.bool, device=token_ids.device)
    return multimodal_causal(num_queries, there)[:, num_queries + num_earlier :]


def unimodal(num_queries: int, there: Bool[Tensor, "text token"]) -> Bool[Tensor, "text position position"]:
    """Contrast: queries read queries and words read words, so that neither knows of the other."""
    is_query = torch.arange(num_queries + there.shape[1], device=there.device) < num_queries
    same_side = rearrange(is_query, "position -> position 1") == is_query
    return full(num_queries, there) & same_side
