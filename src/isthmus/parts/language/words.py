"""What BERT-shaped texts have around their layers: words with positions, and the head for the next word."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.nn.post_norm import NORM_EPS


def placed(
    words: nn.Embedding, positions: nn.Embedding, token_ids: Int[Tensor, "text token"], *, first: int = 0
) -> Float[Tensor, "text token dim"]:
    """Words with their positions, which count from `first`; BERT's token types are left out, as BLIP does.

    Raises:
        ValueError: The text is longer than there are positions.
    """
    last, most = first + token_ids.shape[1], positions.num_embeddings
    if last > most:
        raise ValueError(f"the text has {last} tokens, but there are {most} positions; cut the text")
    return words(token_ids) + positions.weight[first:last]


def word_head(width: int) -> nn.Sequential:
    """BERT's output head up to the product with the words' own vectors."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=NORM_EPS))


def begun_with(token_ids: Int[Tensor, "text token"], start_id: int) -> Int[Tensor, "text token"]:
    """The texts with another first token, which says what they are there for."""
    return torch.cat([torch.full_like(token_ids[:, :1], start_id), token_ids[:, 1:]], dim=1)
