"""A whole recipe: data, model, stages, evaluation, and whether they fit together."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Mistake, Settings, Texts, refuse
from isthmus.config.data import Source
from isthmus.config.evaluation import Evaluation
from isthmus.config.fitting import mistakes_between
from isthmus.config.instruct import InstructStage
from isthmus.config.model import Model
from isthmus.config.naming import mistakes_in_names
from isthmus.config.stages import Stage, TrainStage


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
    data: dict[str, Source] = {}
    """Named sources; a stage that trains needs one."""
    model: Model | None = None
    """What is built; null: `models` says it."""
    models: dict[str, Model] = {}
    """Several models by name, in place of `model`; each stage says which one it trains."""
    final: str | None = None
    """Which of `models` the run hands on, to `ask`, `evaluate` and `export`; null: that of the last stage."""
    features: StoredFeatures | None = None
    """The feature store; null: encode live."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    """What is done, in order."""
    evaluation: Evaluation | None = None
    """How the run is judged; null: not at all."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.training and not any(isinstance(stage, InstructStage) for stage in self.stages):
            allowed = "a stage that trains, because captions need trained models"
            refuse([Mistake(path=("stages",), found="stages of kind capfilt alone", allowed=allowed)])
        if self.training and not self.data:
            refuse(
                [Mistake(path=("data",), found="nothing", allowed="at least one named source to learn from")]
            )
        refuse(mistakes_in_names(model=self.model, models=self.models, final=self.final, stages=self.stages))
        refuse(
            mistakes_between(
                data=self.data,
                models=self.named_models,
                final=self.final_name,
                stores_features=self.features is not None and self.features.store,
                stages=self.stages,
                evaluation=self.evaluation,
            )
        )
        return self

    @property
    def named_models(self) -> dict[str | None, Model]:
        """Every model by its name, in order; a model that is the only one has none."""
        return {None: self.model} if self.model is not None else {**self.models}

    @property
    def final_name(self) -> str | None:
        """The name of the model that the run hands on."""
        if self.model is not None or self.final is not None:
            return self.final
        return (self.training or self.stages)[-1].model

    @property
    def training(self) -> tuple[TrainStage, ...]:
        """The stages that train, in order; of one model alone, as `alone` gives it, these are all."""
        return tuple(stage for stage in self.stages if isinstance(stage, TrainStage))

    @property
    def final_model(self) -> Model:
        """The model that the run hands on."""
        return self.named_models[self.final_name]

    def alone(self, name: str | None) -> Self:
        """The recipe of one of the models: only stages that train it, and evaluation where it is the one handed on."""
        if self.model is not None:
            return self.model_copy(update={"stages": self.training})
        stages = (stage for stage in self.training if stage.model == name)
        return self.model_copy(
            update={
                "model": self.models[str(name)],
                "models": {},
                "final": None,
                "stages": tuple(stage.model_copy(update={"model": None}) for stage in stages),
                "evaluation": self.evaluation if name == self.final_name else None,
            }
        )

    def with_data(self, made: Mapping[str, Source]) -> Self:
        """The recipe with sources that its own stages made beside those that it names."""
        return self.model_copy(update={"data": {**self.data, **made}})

    def stage_before(self, index: int) -> TrainStage | None:
        """The stage that stage `index` starts from, or None where it starts afresh or from another run."""
        stage = self.stages[index]
        earlier = [one for one in self.stages[:index] if isinstance(one, TrainStage)]
        start = stage.start_from if isinstance(stage, TrainStage) else None
        if start is not None:
            return next((one for one in earlier if one.name == start), None)
        return next((one for one in reversed(earlier) if one.model == stage.model), None)
