"""Trained embeddings for a few special tokens beside a frozen table (OpenFlamingo trains two rows and nothing else)."""

from typing import Any, final

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel


@final
class TokenRows(nn.Module):
    """Rows for the ids that follow a language model's table, for reading and for writing.

    They are a part of their own, so that optimizer and checkpoints hold these rows and not the whole table. Where the
    output head shares the table's weights it shares these rows too; otherwise it has rows of its own.

    Attributes:
        num_known: Rows of the frozen table; the ids of these rows start there.
    """

    def __init__(self, *, network: PreTrainedModel, num_rows: int) -> None:
        """Make rows, each the mean of the known ones, and let the output head write them.

        Args:
            network: The causal language model; its output head gets a hook, its weights stay as they are.
            num_rows: Number of new ids.
        """
        super().__init__()
        table, head = network.get_input_embeddings(), network.get_output_embeddings()
        assert isinstance(table, nn.Embedding)
        assert isinstance(head, nn.Linear)
        self.num_known = table.num_embeddings
        self._known = [table, head]  # in a list, so that their weights stay the language model's
        self.table = nn.Parameter(_means(table.weight, num_rows))
        self.head = None if head.weight is table.weight else nn.Parameter(_means(head.weight, num_rows))
        head.register_forward_hook(self._after_head)
        table.register_forward_pre_hook(self._before_table)

    @torch.no_grad()
    def start_as(self, new_id: int, known_id: int) -> None:
        """Let a new token begin as a known one: a row that is never written would take hundreds of steps to rise."""
        row, (table, head) = new_id - self.num_known, self._known
        self.table[row] = table.weight[known_id]
        if self.head is not None:
            self.head[row] = head.weight[known_id]

    def embed(
        self, token_ids: Int[Tensor, "row token"], table: nn.Embedding
    ) -> Float[Tensor, "row token dim"]:
        """Embeddings of ids from the frozen table and from these rows."""
        is_new = token_ids >= self.num_known
        known = table(token_ids.masked_fill(is_new, 0))
        new = self.table[(token_ids - self.num_known).clamp(min=0)].to(known.dtype)
        return torch.where(rearrange(is_new, "row token -> row token 1"), new, known)

    def _before_table(self, table: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Generation feeds what was written straight to the table. A new id there ended its row: any vector will do."""
        del table
        (token_ids,) = args
        return (token_ids.masked_fill(token_ids >= self.num_known, 0),)

    def _after_head(self, head: nn.Module, args: tuple[Any, ...], logits: Tensor) -> Tensor:
        """Logits of these rows after those of the head's own."""
        del head
        rows = self.table if self.head is None else self.head
        return torch.cat([logits, (args[0] @ rows.to(args[0].dtype).T).to(logits.dtype)], dim=-1)


@torch.no_grad()
def _means(weights: Float[Tensor, "known dim"], num_rows: int) -> Float[Tensor, "new dim"]:
    """In float32 whatever the network has: a few rows cost nothing and train better."""
    return repeat(weights.float().mean(dim=0), "dim -> new dim", new=num_rows).clone()
