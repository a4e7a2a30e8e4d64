"""What is measured while a stage trains: held-out loss, and how much worse it gets with another row's picture."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import final

import torch

from isthmus.build.stages import build_objectives
from isthmus.build.workshop import Workshop
from isthmus.config.stages import TrainStage
from isthmus.config.stages import Validation as Settings
from isthmus.core.batch import Batch, exchange_pictures, next_pictures
from isthmus.core.protocols import Progress
from isthmus.data.passes import Pass
from isthmus.evaluation.retrieval import rank_vectors
from isthmus.models.dual_encoder import DualEncoder
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.models.visual_tokenizer import VisualTokenizerModel
from isthmus.run.first_stage import Pretrained, first_stage_values
from isthmus.training.signals import StopSignals

_ROWS_AT_ONCE = 64


@final
class Validation:
    """Called by the trainer with the number of steps done.

    Gives `val.loss` of each objective; for rows with pictures also `val.shuffled_gap`, the loss with the next row's
    picture minus the loss with the right one (a model that looks has a gap above zero); for dual encoders R@1 among the
    pairs looked at; for models that contrast, match and caption R@1, how well pairs are matched and words are written.
    """

    def __init__(self, stage: TrainStage, settings: Settings, workshop: Workshop, stop: StopSignals) -> None:
        self._workshop = workshop
        self._stop = stop
        self._objectives = build_objectives(stage, workshop.model)
        self._rows = Pass(
            workshop.source(settings.data),
            workshop.processor_of(stage),
            rows=settings.rows or stage.rows,
            batch_size=_ROWS_AT_ONCE,
            limit=settings.limit,
            purpose="training",
        )

    @staticmethod
    def of(
        stage: TrainStage, workshop: Workshop, stop: StopSignals
    ) -> Callable[[int], Mapping[str, float]] | None:
        """The stage's validation, or None where it asks for none."""
        settings = stage.validation
        return None if settings is None else Validation(stage, settings, workshop, stop)

    def __call__(self, step: int) -> Mapping[str, float]:
        """Measure once."""
        del step
        model = self._workshop.model
        device = next(model.parameters()).device
        if isinstance(model, DualEncoder):
            return self._retrieval(model, device)
        if isinstance(model, Pretrained):
            return first_stage_values(model, self._moved(device))
        right: defaultdict[str, float] = defaultdict(float)
        shuffled: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for batch, _ in self._rows:
            self._stop.check()
            moved = batch.to(device)
            self._add(moved, right, counts)
            # Where a picture is its own target there is no other to exchange.
            if (
                not isinstance(model, MaskedImageModel | VisualTokenizerModel)
                and moved.num_images == len(moved) > 1
            ):
                others = exchange_pictures(moved, next_pictures(moved))
                self._add(others, shuffled, defaultdict(int))
        values = {f"val.{name}": right[name] / counts[name] for name in counts}
        return values | {
            f"val.shuffled_gap.{name}": (shuffled[name] - right[name]) / counts[name] for name in shuffled
        }

    def _moved(self, device: torch.device) -> Iterator[Batch]:
        for batch, _ in self._rows:
            self._stop.check()
            yield batch.to(device)

    def _add(self, batch: Batch, sums: defaultdict[str, float], counts: defaultdict[str, int]) -> None:
        encoded = self._workshop.model.encode(batch)
        for objective, _ in self._objectives.values():
            for name, term in objective(encoded, batch, Progress(step=0, num_steps=1)).items():
                sums[name] += float(term.sum)
                counts[name] += term.count

    def _retrieval(self, model: DualEncoder, device: torch.device) -> Mapping[str, float]:
        images, texts = [], []
        for batch, _ in self._rows:
            self._stop.check()
            encoded = model.encode(batch.to(device))
            assert encoded.image_views is not None
            assert encoded.text_vectors is not None
            images.append(encoded.image_views[:, 0].cpu())
            texts.append(encoded.text_vectors.cpu())
        ranking = rank_vectors(torch.cat(images), torch.cat(texts), torch.arange(sum(map(len, texts))))
        return {
            "val.text_to_image_r1": float(ranking.text_to_image.hits(1).mean()),
            "val.image_to_text_r1": float(ranking.image_to_text.hits(1).mean()),
        }
