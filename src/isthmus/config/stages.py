"""The stages of a recipe: which parts learn, by which objective, on which data, for how long."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import (
    Count,
    Fraction,
    Mistake,
    Names,
    NotNegative,
    Positive,
    Settings,
    Texts,
    refuse,
    undivided,
)
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.data import Rows
from isthmus.config.instruct import InstructStage

ObjectiveName = Literal[
    "next_token",
    "contrastive",
    "sigmoid",
    "masked_pixels",
    "masked_tokens",
    "reconstruction",
    "uniform_codes",
    "even_codes",
    "classification",
    "matching",
    "captioning",
]
"""The objectives there are."""


class Optimizer(Settings):
    """AdamW and its learning rate over time (Loshchilov and Hutter, 2019)."""

    lr: NotNegative
    """Highest learning rate."""
    lr_by_part: dict[str, NotNegative] = {}
    """Highest learning rates of parts that differ from `lr`."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay of matrices; vectors (norms, biases) have none."""
    weight_decay_by_part: dict[str, NotNegative] = {}
    """Weight decays of parts that differ from `weight_decay`."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """How long first and second moments remember."""
    eps: Positive = 1.0e-8
    """Added to the root of the second moment."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up."""
    warmup_fraction: Fraction = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    final_lr_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Where the learning rate ends, as a share of its highest value."""
    clip: Positive | None = 1.0
    """Largest norm of the whole gradient; null: not clipped."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights, which is what the stage hands on; null: none."""

    def by_part(self) -> Iterator[tuple[str, str]]:
        """Every setting of a single part, as the setting's name and the part's."""
        yield from (("lr_by_part", part) for part in self.lr_by_part)
        yield from (("weight_decay_by_part", part) for part in self.weight_decay_by_part)


class Validation(Settings):
    """What is measured while a stage runs."""

    data: str
    """The source."""
    rows: Rows | None = None
    """How its samples are read; null: as in training."""
    every: Count = 200
    """Steps between two measurements."""
    limit: Count | None = 500
    """Most samples that are looked at; null: all."""


class Views(Settings):
    """Random views of pictures, drawn anew for each row."""

    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Least share of a picture's area that is seen; 0.5 in FLIP."""
    flip: bool = False
    """Whether half of the views are mirrored."""


class TrainStage(Settings):
    """One stretch of training."""

    kind: Literal["train"] = "train"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    """Its name and its folder in the run."""
    model: str | None = None
    """Which of the recipe's `models` it trains; null where the recipe has one `model`."""
    start_from: str | None = None
    """An earlier stage, or a run directory (a path with a `/`), whose parts are taken over by name; null: the stage
    before that trained the same model, if there is one."""
    drop: Texts = ()
    """What is not taken over: parts, or what begins so inside a part, such as `connector.text`."""
    fresh: Texts = ()
    """What taken-over parts lack at the start and begin with values of their own, such as `connector.projection`."""
    train: Names
    """The parts that learn; all others are frozen."""
    freeze: Texts = ()
    """What stays frozen inside parts that learn: `token_embeddings`, with the output head where it is tied to them."""
    objective: Annotated[dict[ObjectiveName, Positive], Field(min_length=1)]
    """Objectives and their weights."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread evenly over all choices."""
    hardness: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """How strongly the objective `matching` prefers wrong pairs that look alike: 1 draws them in proportion to the
    softmax of scaled similarities (Li et al., 2021), 0 draws all evenly; between, similarities count for less."""
    data: str
    """The source it learns from."""
    rows: Rows
    """How its samples are read."""
    template: str | None = None
    """Name of the chat template of this stage's rows; null: the language model's, which judging and use always take."""
    captions: Literal["one", "all", "each"] = "one"
    """One caption of each sample an epoch; every caption as a row; or all captions of a picture in one row."""
    patches_kept: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of a picture's patches that the vision encoder sees in training (FLIP, MAE), drawn anew for each row; CLS
    always stays; null: all."""
    whole: Fraction = 0.0
    """Share of `regions` rows that are read as whole pictures with a caption instead, all of it marked (Alpha-CLIP)."""
    views: Views | None = None
    """Parts of pictures that are seen in training instead of the whole; null: pictures as they are."""
    group_by_modality: bool = False
    """Whether every step has only rows with pictures or only rows without, as LLaVA-1.5 trains."""
    epochs: Count | None = None
    """Passes over the data; either this or `steps`."""
    steps: Count | None = None
    """Optimizer steps; either this or `epochs`."""
    minutes: Positive | None = None
    """The stage also ends after this many minutes; null: no cap."""
    batch_size: Count
    """Rows a step."""
    micro_batch_size: Count | None = None
    """Rows that are in memory at once; divides `batch_size`; null: all of them. Objectives that compare the whole batch
    run fewer rows twice, by cached gradients, and learn the same."""
    recompute: Texts = ()
    """Parts, frozen ones too, that run again in the backward pass and keep no activations: less memory, more time."""
    optimizer: Optimizer
    """How it learns."""
    validation: Validation | None = None
    """What is measured meanwhile; null: nothing."""
    checkpoint_every: Count = 200
    """Steps between two checkpoints; the last step always has one."""

    @model_validator(mode="after")
    def _check_stage(self) -> Self:
        mistakes = []
        if (self.epochs is None) == (self.steps is None):
            found = "neither epochs nor steps" if self.epochs is None else "both epochs and steps"
            mistakes.append(Mistake(path=("steps",), found=found, allowed="exactly one of epochs and steps"))
        micro = self.micro_batch_size
        if micro is not None:
            mistakes += undivided(("micro_batch_size",), micro, whole="batch_size", total=self.batch_size)
        for setting, name in self.optimizer.by_part():
            if name not in self.train:
                path = ("optimizer", setting, name)
                allowed = f"parts this stage trains: {', '.join(self.train)}"
                mistakes.append(Mistake(path=path, found=f"'{name}'", allowed=allowed, choices=self.train))
        if self.hardness < 1.0 and "matching" not in self.objective:
            allowed = "1.0, because only the objective matching draws wrong pairs"
            mistakes.append(Mistake(path=("hardness",), found=f"{self.hardness:g}", allowed=allowed))
        refuse(mistakes)
        return self


Stage = Annotated[TrainStage | CapfiltStage | InstructStage, Field(discriminator="kind")]
"""One entry of `stages`: it trains, or it makes data."""
