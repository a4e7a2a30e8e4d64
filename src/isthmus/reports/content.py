"""What a report says, as plain data: whoever ran something fills these in, and `page` draws them.

Nothing here knows a model: pictures are PIL images or encoded bytes, everything else is text and numbers.
Fields left at their defaults leave their section out of the page.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, final

from isthmus.reports.examples import Examples
from isthmus.reports.scales import Point
from isthmus.reports.wording import Measure

VerdictState = Literal["sees", "guesses", "unsure"]

STANDARD_CONTROLS: dict[str, tuple[str, str]] = {
    "real": ("with the picture", "the row's own picture"),
    "blank": ("with a blank picture", "a picture of the mean colour through the same processor"),
    "shuffled": ("with another row's picture", "no row keeps its own picture"),
    "wrong": ("with the most similar wrong picture", "the most similar other picture of the same set"),
    "blind": ("best answerer without a picture", "the most frequent answer to each question's text"),
}
"""Label and meaning of the controls that Isthmus measures, by the name they have in `results.json`."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The sentence the run ends with, and what it comes to: it sees, it guesses, or nobody can tell."""

    text: str
    state: VerdictState


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Which run this is, on which machine (one line), how long it took and how much memory at most."""

    recipe: str
    verdict: Verdict | None = None
    finished: datetime | None = None
    machine: str = ""
    seconds: float | None = None
    peak_memory_bytes: int | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measured value with its 95% interval and the number of samples behind it; NaN shows as a dash."""

    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """A condition the same questions were asked under; `real` marks the one with the row's own picture."""

    label: str
    estimate: Estimate
    meaning: str = ""
    real: bool = False


def standard_control(name: str, estimate: Estimate) -> Control:
    """Return one of `STANDARD_CONTROLS` with its label and meaning filled in.

    Raises:
        ValueError: No standard control has this name.
    """
    if name not in STANDARD_CONTROLS:
        raise ValueError(f"no control is called {name!r}; expected one of {', '.join(STANDARD_CONTROLS)}")
    label, meaning = STANDARD_CONTROLS[name]
    return Control(label=label, estimate=estimate, meaning=meaning, real=name == "real")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class KindRow:
    """One kind of question: an estimate for each control, in their order (None where not measured)."""

    kind: str
    estimates: tuple[Estimate | None, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """The same test under several conditions; `quantity` says what is measured, for example `answers right`.

    Raises:
        ValueError: A kind has another number of estimates than there are controls.
    """

    controls: tuple[Control, ...]
    quantity: str = "answers right"
    measure: Measure = "percent"
    kinds: tuple[KindRow, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that would be shown under the wrong heading."""
        for row in self.kinds:
            if len(row.estimates) != len(self.controls):
                raise ValueError(
                    f"kind {row.kind!r} has {len(row.estimates)} estimates, expected {len(self.controls)}, "
                    "one for each control"
                )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """One metric, with an estimate for each column of its table (None where not measured)."""

    name: str
    estimates: tuple[Estimate | None, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MetricTable:
    """Metrics by column: R@1, R@5, R@10 both ways, or CIDEr, BLEU, ROUGE-L for real and shuffled photos.

    Raises:
        ValueError: A row has another number of estimates than there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    measure: Measure = "number"
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that would be shown under the wrong heading."""
        for row in self.rows:
            if len(row.estimates) != len(self.columns):
                raise ValueError(
                    f"metric {row.name!r} has {len(row.estimates)} estimates, expected {len(self.columns)}, "
                    "one for each column"
                )


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What was measured: the controls, and tables of metrics."""

    controls: Controls | None = None
    metrics: tuple[MetricTable, ...] = ()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A labelled line: (step, value) points in any order."""

    label: str
    points: tuple[Point, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Curves that share their axes; `log` makes the vertical one logarithmic."""

    title: str
    curves: tuple[Curve, ...]
    x_label: str = "step"
    log: bool = False


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StageCurves:
    """The charts of one stage."""

    stage: str
    charts: tuple[Chart, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PartRow:
    """A part: `trainable` of its `parameters` (None = all) learnt in `trained_in` (no stage = frozen)."""

    name: str
    kind: str
    parameters: int
    trained_in: tuple[str, ...] = ()
    trainable: int | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StageRow:
    """A stage: `loss` is the last training loss, `trainable` the number of parameters that learnt."""

    name: str
    steps: int
    seconds: float
    loss: float | None = None
    trainable: int | None = None
    trains: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTables:
    """What the model is made of, what was trained when, and one line about stored features."""

    parts: tuple[PartRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    features: str = ""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """How the numbers were made; `versions` are (package, version) pairs, `notes` whole sentences."""

    command: str = ""
    seed: int | None = None
    versions: tuple[tuple[str, str], ...] = ()
    recipe_yaml: str = ""
    recipe_sha256: str = ""
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class NextCommand:
    """A command to try next, and what it is good for."""

    command: str
    why: str = ""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ReportContent:
    """Everything one report says; only the header is needed."""

    header: Header
    results: Results = Results()
    curves: tuple[StageCurves, ...] = ()
    examples: Examples = field(default_factory=Examples)
    model: ModelTables = ModelTables()
    provenance: Provenance = Provenance()
    next_commands: tuple[NextCommand, ...] = ()
