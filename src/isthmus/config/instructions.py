"""What `isthmus curate instruct` may be told; each text is what `--help` says of the option. Never imports torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from isthmus.core.errors import UsageError

Kind = Literal["conversation", "detail", "reasoning"]
"""LLaVA's kinds of instruction data: talks, detailed descriptions, complex reasoning."""

KINDS: tuple[Kind, ...] = ("conversation", "detail", "reasoning")


_LONGEST_S = 86_400
"""The longest that a reply is waited for."""


@dataclass(frozen=True, kw_only=True)
class FactOptions:
    """Which pictures are written about, and how.

    Raises:
        UsageError: A kind does not exist, or a number is out of range.
    """

    instances: Annotated[Path | None, "COCO's instances file, where FACTS is its captions file."] = None
    split: Annotated[Literal["train", "val", "test"], "Which scenes, where FACTS is scenes."] = "train"
    limit: Annotated[int | None, "Most pictures; of scenes 100 without it."] = None
    kinds: Annotated[str, "Kinds to write, with commas."] = ",".join(KINDS)
    prompts: Annotated[Path | None, "A folder with prompts and examples in place of the shipped ones."] = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; expected 1 or more")
        if not self.chosen or set(self._named) - set(KINDS):
            raise UsageError(f"--kinds is '{self.kinds}'; expected some of {','.join(KINDS)}")

    @property
    def _named(self) -> list[str]:
        return [name.strip() for name in self.kinds.split(",")]

    @property
    def chosen(self) -> tuple[Kind, ...]:
        """The kinds, in the order in which rows are written."""
        return tuple(kind for kind in KINDS if kind in self._named)


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """Who writes: an endpoint, a local language model, or without either the grammar of the built-in world.

    Raises:
        UsageError: Two writers are named, an endpoint has no model, or a number is out of range.
    """

    endpoint: Annotated[
        str | None, "Base URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."
    ] = None
    model: Annotated[str | None, "The model's name at the endpoint."] = None
    key_variable: Annotated[str, "The environment variable that holds the endpoint's key."] = "OPENAI_API_KEY"
    local: Annotated[
        Path | None,
        "A Hugging Face folder of a causal language model, a run of ours, or a recipe such as instruct_data.",
    ] = None
    template: Annotated[str, "The chat template of a --local folder."] = "plain"
    max_tokens: Annotated[int, "Longest reply, in tokens."] = 1024
    temperature: Annotated[float, "Divides the logits when drawing; 0 takes the likeliest token."] = 0.7

    def __post_init__(self) -> None:
        if self.endpoint is not None and self.local is not None:
            raise UsageError("--endpoint and --local both name a writer; give one of them")
        if self.endpoint is not None and not self.model:
            raise UsageError("--endpoint needs --model, the name that the server knows its model by")
        if self.max_tokens < 1 or not 0 <= self.temperature < math.inf:
            found = f"--max-tokens is {self.max_tokens} and --temperature {self.temperature:g}"
            raise UsageError(f"{found}; expected at least 1, and 0 or more")


@dataclass(frozen=True, kw_only=True)
class PaceOptions:
    """How fast an endpoint is asked, how patiently, and for how much money.

    Raises:
        UsageError: A number is out of range, or a most cost is given without prices.
    """

    requests_per_minute: Annotated[float, "Most requests a minute."] = 60.0
    concurrency: Annotated[int, "Requests under way at once."] = 4
    retries: Annotated[int, "How often a request is repeated after 429, 5xx or a broken connection."] = 5
    timeout_s: Annotated[float, "Seconds until a reply counts as lost."] = 120.0
    price_in: Annotated[float, "Price of a million tokens read."] = 0.0
    price_out: Annotated[float, "Price of a million tokens written."] = 0.0
    max_cost: Annotated[float | None, "Stop before this is spent; what is written stays."] = None

    def __post_init__(self) -> None:
        for name, value in (
            ("requests-per-minute", self.requests_per_minute),
            ("timeout-s", self.timeout_s),
            ("price-in", self.price_in),
            ("price-out", self.price_out),
            ("max-cost", self.max_cost),
        ):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"--{name} is {value:g}; expected a finite number")
        if self.timeout_s > _LONGEST_S:
            raise UsageError(f"--timeout-s is {self.timeout_s:g}; expected {_LONGEST_S:,} or less, a day")
        if min(self.requests_per_minute, self.timeout_s) <= 0 or self.concurrency < 1 or self.retries < 0:
            raise UsageError(
                "--requests-per-minute and --timeout-s have to be above 0, --concurrency 1 or more, --retries 0 or more"
            )
        if min(self.price_in, self.price_out) < 0 or (self.max_cost is not None and self.max_cost <= 0):
            raise UsageError(
                "--price-in and --price-out cannot be below 0, and --max-cost has to be above it"
            )
        if self.max_cost is not None and self.price_in + self.price_out == 0:
            raise UsageError("--max-cost needs --price-in and --price-out, the prices of a million tokens")
