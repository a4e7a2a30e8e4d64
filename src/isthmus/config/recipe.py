"""A whole recipe: data, model, stages, evaluation, and whether they fit together."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Settings, Texts, refuse
from isthmus.config.data import Source
from isthmus.config.evaluation import Evaluation
from isthmus.config.fitting import mistakes_between
from isthmus.config.model import Model
from isthmus.config.stages import Stage


class StoredFeatures(Settings):
    """Whether outputs of a frozen vision encoder are written once and read afterwards."""

    store: bool = True
    """Write them; false: encode live."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number format on disk."""


class Recipe(Settings):
    """One YAML file: the design a reader sees first."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
    """Its name; a run goes to `runs/NAME` if not told otherwise."""
    paper: Texts = ()
    """Addresses of the papers it follows."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Every random choice follows from it."""
    data: Annotated[dict[str, Source], Field(min_length=1)]
    """Named sources."""
    model: Model
    """What is built."""
    features: StoredFeatures | None = None
    """The feature store; null: encode live."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    """What is done, in order."""
    evaluation: Evaluation | None = None
    """How the run is judged; null: not at all."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        refuse(
            mistakes_between(
                data=self.data,
                model=self.model,
                stores_features=self.features is not None and self.features.store,
                stages=self.stages,
                evaluation=self.evaluation,
            )
        )
        return self

    def stage_before(self, index: int) -> Stage | None:
        """The stage that stage `index` starts from, or None where it starts afresh or from another run."""
        start = self.stages[index].start_from
        if start is None:
            return self.stages[index - 1] if index > 0 else None
        return next((stage for stage in self.stages[:index] if stage.name == start), None)
