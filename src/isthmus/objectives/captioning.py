"""Image-grounded text generation: each word of a caption from its picture and the words before it (Li et al., 2023)."""

from typing import final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Captions, Encoded, Progress, Term


@final
class Captioning:
    """The sum of -log p(word) over the words after the first token; its count is their number."""

    def __init__(self, model: Captions, *, label_smoothing: float = 0.0) -> None:
        """Read states and logits from `model`; `label_smoothing` spreads this fraction evenly over the vocabulary."""
        self.model = model
        self.label_smoothing = label_smoothing

    def counts(self, batch: Batch) -> dict[str, int]:
        """Words and end tokens; the token that begins a text is given, not written."""
        mask = batch.attention_mask
        return {"captioning": 0 if mask is None else int(mask[:, 1:].sum())}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `captioning`."""
        del progress
        logits, targets = self.predictions(encoded, batch)
        total = functional.cross_entropy(
            logits.float(), targets, reduction="sum", label_smoothing=self.label_smoothing
        )
        return {"captioning": Term(sum=total, count=len(targets))}

    def predictions(
        self, encoded: Encoded, batch: Batch
    ) -> tuple[Float[Tensor, "position vocab"], Int[Tensor, " position"]]:
        """Logits of every word that is written, and which word it is."""
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        written = batch.attention_mask[:, 1:]
        hidden = self.model.caption(encoded, batch)[:, :-1]
        return self.model.caption_logits(hidden[written]), batch.token_ids[:, 1:][written]
