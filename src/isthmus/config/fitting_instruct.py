"""Whether a stage that writes instruction data has a language model to write it."""

from collections.abc import Iterator, Mapping, Sequence

from isthmus.config.base import Mistake
from isthmus.config.instruct import InstructStage
from isthmus.config.language import LlamaLanguage
from isthmus.config.model import LanguageModel, Model
from isthmus.config.stages import Stage, TrainStage


def mistakes(
    index: int, stage: InstructStage, models: Mapping[str | None, Model], earlier: Sequence[Stage]
) -> Iterator[Mistake]:
    """What is wrong with a stage of kind `instruct`."""
    model, path = models[stage.model], ("stages", index, "model")
    if not isinstance(model, LanguageModel):
        allowed = "a language_model, because what is written is made of words alone"
        yield Mistake(path=path, found=f"a {model.kind}", allowed=allowed)
    elif isinstance(model.language, LlamaLanguage):
        trained = {one.model for one in earlier if isinstance(one, TrainStage)}
        if stage.model not in trained:
            allowed = "one of kind pretrained, or an earlier stage that trains it"
            found = "a language model whose weights are random"
            yield Mistake(path=path, found=found, allowed=allowed)
