"""A small model with a frozen encoder, a connector and a language part, for tests of training."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.protocols import Encoded, Progress, Term
from isthmus.core.randomness import generator_of

VOCABULARY = 11
DIM = 8


class ToyModel(nn.Module):
    """Predicts the next token from the token before it and from a picture's features."""

    def __init__(self, *, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision = nn.Sequential(nn.Linear(4, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5))
        self.connector = nn.Linear(DIM, DIM)
        self.language = nn.ModuleDict(
            {
                "tokens": nn.Embedding(VOCABULARY, DIM),
                "norm": nn.LayerNorm(DIM),
                "dropout": nn.Dropout(dropout),
                "head": nn.Linear(DIM, VOCABULARY, bias=False),
            }
        )
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def parts(self) -> dict[str, nn.Module]:
        return {"vision": self.vision, "connector": self.connector, "language": self.language}

    def encode(self, batch: Batch) -> Encoded:
        assert batch.token_ids is not None
        assert batch.features is not None
        picture = self.connector(self.vision(batch.features.mean(1)))
        hidden = self.language["tokens"](batch.token_ids) + picture[:, None]
        return Encoded(hidden=self.language["dropout"](self.language["norm"](hidden)))

    def token_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.language["head"](hidden)

    def after_step(self, progress: Progress) -> None:
        self.num_updates += 1


class ToyNextToken:
    """The next-token objective, written out."""

    def __init__(self, model: ToyModel) -> None:
        self._model = model

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"next_token": batch.num_supervised}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        assert encoded.hidden is not None
        assert batch.targets is not None
        logits = self._model.token_logits(encoded.hidden[:, :-1]).flatten(0, 1)
        total = functional.cross_entropy(
            logits, batch.targets[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return {"next_token": Term(sum=total, count=batch.num_supervised)}


class ToyStream:
    """Steps of micro-batches whose rows have different lengths; a pure function of seed and step."""

    def __init__(
        self, *, rows: Sequence[int] = (3, 2), seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        self._rows = rows
        self._seed = seed
        self._dtype = dtype

    def micro_batches(self, step: int) -> list[Batch]:
        random = generator_of(self._seed, step)
        batches, first = [], 0
        for rows in self._rows:
            token_ids = torch.randint(VOCABULARY, (rows, 7), generator=random)
            lengths = torch.randint(2, 8, (rows,), generator=random)
            mask = torch.arange(7) < lengths[:, None]
            batches.append(
                Batch(
                    sample_ids=tuple(f"step {step} row {first + i}" for i in range(rows)),
                    features=torch.randn(rows, 5, 4, generator=random, dtype=torch.float64).to(self._dtype),
                    token_ids=token_ids,
                    attention_mask=mask,
                    targets=token_ids.masked_fill(~mask, IGNORED),
                )
            )
            first += rows
        return batches


def merged(batches: Sequence[Batch]) -> Batch:
    """Several micro-batches as one batch."""

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    return Batch(
        sample_ids=tuple(row for batch in batches for row in batch.sample_ids),
        features=joined("features"),
        token_ids=joined("token_ids"),
        attention_mask=joined("attention_mask"),
        targets=joined("targets"),
    )
