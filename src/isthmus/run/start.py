"""What a stage begins with: fresh weights, or those of an earlier stage or of another run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from isthmus.build.workshop import Workshop
from isthmus.config.recipe import Recipe
from isthmus.config.stages import TrainStage
from isthmus.core.errors import CheckpointError
from isthmus.data.vocabulary import load_tokenizer
from isthmus.run.directory import RunDirectory
from isthmus.run.weights import Transfer, load_weights, saved_parts

_READERS = ("language", "lora", "text")
"""Parts that know words by their ids."""


def check_starts(recipe: Recipe) -> None:
    """Look for the other runs that stages start from, before the first of them learns.

    Raises:
        CheckpointError: One is not finished or not there.
    """
    for index, stage in enumerate(recipe.stages):
        is_own = not isinstance(stage, TrainStage) or recipe.stage_before(index) is not None
        if not is_own and stage.start_from is not None:
            _finished(stage)


def _finished(stage: TrainStage) -> RunDirectory:
    """The other run that a stage starts from."""
    assert stage.start_from is not None
    other = RunDirectory(Path(stage.start_from))
    if not other.final.is_dir():
        raise CheckpointError(
            f"stage {stage.name} starts from {stage.start_from}, which holds no finished run; "
            "give a directory with a `final` folder"
        )
    return other


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a stage's weights come from.

    Attributes:
        stage: The stage.
        folder: Where the weights lie that it takes over; None where it begins afresh.
        tokenizer: The tokenizer that they learnt with, where that may be another.
        is_same_model: Whether they belong to the model that the stage trains.
    """

    stage: TrainStage
    folder: Path | None = None
    tokenizer: Path | None = None
    is_same_model: bool = True

    @classmethod
    def of(cls, recipe: Recipe, index: int, directory: RunDirectory) -> Self:
        """The start of stage `index`.

        Raises:
            CheckpointError: It starts from another run that is not finished.
        """
        stage, before = recipe.stages[index], recipe.stage_before(index)
        assert isinstance(stage, TrainStage)
        if before is not None:
            return cls(
                stage=stage,
                folder=directory.stage(before.name),
                tokenizer=directory.tokenizer(before.model),
                is_same_model=before.model == stage.model,
            )
        if stage.start_from is None:
            return cls(stage=stage)
        other = _finished(stage)
        return cls(stage=stage, folder=other.final, tokenizer=other.final, is_same_model=False)

    def take_over(self, workshop: Workshop) -> tuple[str, ...]:
        """Put the weights into the model; returns the parts they belong to.

        Raises:
            CheckpointError: They do not fit; all differences are listed.
        """
        if self.folder is None:
            return ()
        listed = Transfer(drop=self.stage.drop, fresh=self.stage.fresh)
        if self.is_same_model and listed == Transfer():
            return load_weights(workshop.model, self.folder)
        parts = [part for part in saved_parts(self.folder) if part not in listed.drop]
        known = workshop.recipe.final_model.part_names
        strange = [part for part in parts if part not in known]
        if strange:
            raise CheckpointError(
                f"stage {self.stage.name} starts from {self.folder.parent}, which learnt {', '.join(strange)}; "
                f"this model has only {', '.join(known)}; list what is not needed under drop"
            )
        if not self.is_same_model:
            self._check_words([part for part in parts if part in _READERS], workshop)
        return load_weights(workshop.model, self.folder, transfer=listed)

    def _check_words(self, readers: list[str], workshop: Workshop) -> None:
        """Refuse parts whose words have other ids here."""
        if not readers or self.tokenizer is None or workshop.tokenizer is None:
            return
        if load_tokenizer(str(self.tokenizer)).get_vocab() != workshop.tokenizer.get_vocab():
            raise CheckpointError(
                f"stage {self.stage.name} starts from {self.tokenizer.parent}, whose {', '.join(readers)} learnt with "
                "another tokenizer; train this recipe's tokenizer on the same data with the same settings"
            )
