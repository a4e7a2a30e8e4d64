"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math
from typing import Literal, assert_never

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate_factor(
    step: int, num_steps: int, *, schedule: Schedule, warmup_fraction: float, final_fraction: float
) -> float:
    """What the peak learning rate is multiplied by at `step`, in (0, 1].

    It rises linearly over the first `warmup_fraction` of the steps (already above 0 at step 0) and then falls to
    `final_fraction`, which it would reach one step after the last. Cosine: Loshchilov and Hutter, 2017 (SGDR),
    equation 5 without restarts.

    Args:
        step: Counts from 0.
        num_steps: Steps of the stage.
        schedule: How it falls.
        warmup_fraction: Share of the steps that warm up, in [0, 1).
        final_fraction: Where it falls to, as a share of the peak.
    """
    warmup = round(warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(num_steps - warmup, 1)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - (1.0 - final_fraction) * done
        case "cosine":
            return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * done))
        case _:
            assert_never(schedule)
