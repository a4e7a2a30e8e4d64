"""Instruction data in a recipe: which language model writes it, about which pictures, and what."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Mistake, NotNegative, Settings, refuse
from isthmus.config.instructions import KINDS, Kind


class InstructStage(Settings):
    """A language model writes instruction data from captions and boxes (Liu et al., 2023, section 3)."""

    kind: Literal["instruct"] = "instruct"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    """Its name and its folder in the run."""
    model: str | None = None
    """Which of the recipe's `models` writes, as the stages before left it; null where the recipe has one `model`."""
    facts: str
    """`scenes`, a `.jsonl` file of captions and boxes, or COCO's captions file; `${shared}` is the shared folder."""
    instances: str | None = None
    """COCO's instances file, where `facts` is its captions file; null: no boxes."""
    split: Literal["train", "val", "test"] = "train"
    """Which scenes, where `facts` is scenes."""
    limit: Count | None = None
    """Most pictures; null: all, and of scenes 100."""
    kinds: Annotated[tuple[Kind, ...], Field(strict=False, min_length=1)] = KINDS
    """What is written about each picture."""
    prompts: str | None = None
    """A folder with prompts and examples; null: the shipped ones."""
    max_tokens: Count = 1024
    """Longest reply in tokens."""
    temperature: NotNegative = 0.7
    """Divides the logits when drawing; 0 takes the likeliest token."""

    @model_validator(mode="after")
    def _check_facts(self) -> Self:
        mistakes = []
        if self.facts != "scenes" and not self.facts.endswith((".jsonl", ".json")):
            allowed = "scenes, a .jsonl file of captions and boxes, or COCO's captions file (.json)"
            mistakes.append(Mistake(path=("facts",), found=f"'{self.facts}'", allowed=allowed))
        if self.instances is not None and not self.facts.endswith(".json"):
            allowed = "null, because only COCO's captions file has its boxes elsewhere"
            mistakes.append(Mistake(path=("instances",), found=f"'{self.instances}'", allowed=allowed))
        refuse(mistakes)
        return self
