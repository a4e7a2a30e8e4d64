"""A small dual encoder with dropout, and pairs for it, for tests of losses that compare a whole batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress
from isthmus.core.randomness import generator_of

WIDTH = 6


class PairModel(nn.Module):
    """Features of pictures and sums of words become unit vectors of one space."""

    def __init__(self, *, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.image = nn.Sequential(
            nn.Linear(4, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, WIDTH)
        ).double()
        self.text = nn.Sequential(
            nn.EmbeddingBag(9, 16, mode="sum"), nn.Dropout(dropout), nn.Linear(16, WIDTH)
        ).double()
        self.scale = nn.ParameterList(
            [nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (4.0, -1.0)]
        )

    def parts(self) -> dict[str, nn.Module]:
        return {"image": self.image, "text": self.text, "scale": self.scale}

    def encode(self, batch: Batch) -> Encoded:
        assert batch.features is not None
        assert batch.token_ids is not None
        images = functional.normalize(self.image(batch.features.mean(1)), dim=-1)
        texts = functional.normalize(self.text(batch.token_ids), dim=-1)
        return Encoded(image_views=images.unsqueeze(1), text_vectors=texts)

    def logit_scale(self) -> Tensor:
        return self.scale[0]

    def logit_bias(self) -> Tensor:
        return self.scale[1]

    def after_step(self, progress: Progress) -> None:
        pass


class PairStream:
    """The same pairs at every cut of a step: `rows` says how many each micro-batch has."""

    def __init__(self, rows: Sequence[int], *, first: int = 0, texts_a_picture: int = 1) -> None:
        self._rows = rows
        self._first = first
        self._texts = texts_a_picture

    def micro_batches(self, step: int) -> list[Batch]:
        batches, at = [], self._first
        for count in self._rows:
            rows = [self._row(step, number) for number in range(at, at + count)]
            own = [place for place, (_, texts) in enumerate(rows) for _ in texts]
            batches.append(
                Batch(
                    sample_ids=tuple(str(number) for number in range(at, at + count)),
                    features=torch.stack([features for features, _ in rows]),
                    token_ids=torch.cat([texts for _, texts in rows]),
                    image_of_text=torch.tensor(own) if self._texts > 1 else None,
                )
            )
            at += count
        return batches

    def _row(self, step: int, number: int) -> tuple[Tensor, Tensor]:
        """A picture and its texts; with several a picture, odd rows have one less."""
        random = generator_of(step, number)
        num_texts = self._texts - (number % 2 if self._texts > 1 else 0)
        features = torch.randn(5, 4, generator=random, dtype=torch.float64)
        return features, torch.randint(9, (num_texts, 3), generator=random)
