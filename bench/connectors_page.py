"""The page of connectors and ways in: right answers with the picture and its controls, mean and spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from results import Page

from isthmus.evaluation.statistics import Spread, spread

STRIP_RATE, LORA_RATE = 2.0e-3, 1.0e-3
"""Highest learning rates of what stands between the models and of LoRA, tuned for none of the arms."""
PICTURES = ("real", "blank", "shuffled", "wrong")


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        arm: The row of the table it belongs to.
        learns: Parts that the second stage trains.
        origin: The shipped recipe and what was changed in it.
        seed: Of initial weights, rows and order.
        recipe_hash: SHA-256 of the resolved recipe.
        trainable: Parameters trained in each stage.
        visual_tokens: For one picture.
        seconds: Training, both stages.
        found: What `isthmus evaluate` found on the test split.
    """

    arm: str
    learns: str
    origin: tuple[str, ...]
    seed: int
    recipe_hash: str
    trainable: tuple[int, ...]
    visual_tokens: int
    seconds: float
    found: dict[str, Any]

    def share(self, picture: str) -> float:
        """Right answers with a kind of picture."""
        return float(self.found["controls"]["answers"][picture]["accuracy"])

    @property
    def margin(self) -> float:
        """Right answers with the real picture minus those with the best control."""
        return float(self.found["controls"]["margin"]["value"])

    def of_kind(self, kind: str) -> float:
        """Right answers to one kind of question with the real picture."""
        return float(self.found["kinds"][kind]["real"]["accuracy"])


def page_of(outcomes: Sequence[Outcome], steps: tuple[int, int]) -> Page:
    """The page; every arm has the same seeds."""
    seeds = ", ".join(map(str, sorted({one.seed for one in outcomes})))
    page = Page(
        f"Connectors and ways in on the built-in world ({outcomes[0].found['n']:,} test questions)",
        "python bench/connectors.py",
    )
    page.say(
        f"Budget: {steps[0]} steps of 32 captions, then {steps[1]} steps of 32 conversations. Seeds: {seeds};",
        "with one seed every arm sees the same rows in the same order. Highest learning rate:",
        f"{STRIP_RATE:g}, of LoRA {LORA_RATE:g}, tuned for no arm. The vision encoder is the shipped one, frozen;",
        "so is the language model, but for LoRA.",
    )
    page.head("Right answers on compositions that training never showed, %")
    page.say("Mean ± sample standard deviation over seeds.")
    page.table(
        [
            "arm",
            "second stage trains",
            "trained, stage 1",
            "trained, stage 2",
            "visual tokens",
            *PICTURES,
            "real minus best control",
            "looks",
            "training, s",
        ],
        [_row(rows) for rows in _by_arm(outcomes).values()],
    )
    page.say(
        "With `blank`, `shuffled` and `wrong` the same model is shown a blank picture, another row's, and the most",
        "similar other one. `looks` counts the seeds for which the verdict is that it looks at the picture.",
    )
    page.head("By kind of question, with the right picture, %")
    kinds = sorted(outcomes[0].found["kinds"])
    page.table(
        ["arm", *kinds],
        [
            [arm, *[_percent(spread([one.of_kind(kind) for one in rows])) for kind in kinds]]
            for arm, rows in _by_arm(outcomes).items()
        ],
    )
    return page


def data_of(outcomes: Sequence[Outcome], steps: tuple[int, int]) -> dict[str, Any]:
    """The numbers behind the page, each run's with its intervals."""
    return {
        "steps": list(steps),
        "rates": {"strip": STRIP_RATE, "lora": LORA_RATE},
        "arms": {
            arm: {
                "recipe": rows[0].origin[0],
                "changes": list(rows[0].origin[1:]),
                "trainable": list(rows[0].trainable),
                "visual_tokens": rows[0].visual_tokens,
                **{name: spread([one.share(name) for one in rows]).to_json() for name in PICTURES},
                "margin": spread([one.margin for one in rows]).to_json(),
                "runs": [
                    {"seed": one.seed, "recipe_sha256": one.recipe_hash, "training_seconds": one.seconds}
                    | one.found
                    for one in rows
                ],
            }
            for arm, rows in _by_arm(outcomes).items()
        },
    }


def _by_arm(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return {name: [one for one in outcomes if one.arm == name] for name in (one.arm for one in outcomes)}


def _row(rows: Sequence[Outcome]) -> list[str]:
    looks = sum(one.found["controls"]["conclusion"] == "looks at the picture" for one in rows)
    return [
        rows[0].arm,
        rows[0].learns,
        *[f"{count:,}" for count in rows[0].trainable],
        str(rows[0].visual_tokens),
        *[_percent(spread([one.share(picture) for one in rows])) for picture in PICTURES],
        _percent(spread([one.margin for one in rows])),
        f"{looks} of {len(rows)}",
        f"{spread([one.seconds for one in rows]).mean:.0f}",
    ]


def _percent(found: Spread) -> str:
    return f"{100 * found.mean:.1f} ± {100 * found.deviation:.1f}"
