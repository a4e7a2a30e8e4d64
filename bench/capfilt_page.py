"""The page of `bench/capfilt.py`: what the filter found, and what captions taught new models."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from results import Page, percent

from isthmus.evaluation.statistics import spread

Seed = Mapping[str, Any]
"""All numbers of one seed."""

METRICS: dict[str, tuple[tuple[str, ...], float]] = {
    "text to photo R@1, %": (("retrieval", "text_to_image", "recall_at_1"), 100.0),
    "text to photo R@10, %": (("retrieval", "text_to_image", "recall_at_10"), 100.0),
    "photo to text R@1, %": (("retrieval", "image_to_text", "recall_at_1"), 100.0),
    "photo to text R@10, %": (("retrieval", "image_to_text", "recall_at_10"), 100.0),
    "CIDEr": (("captions", "cider"), 1.0),
}
"""Where each number stands, and what it is multiplied by."""

SHARES = {
    "dropped captions that are wrong (precision)": "dropped_precision",
    "wrong captions that are dropped (recall)": "dropped_recall",
    "kept captions that are right": "kept_precision",
    "right captions that are kept": "kept_recall",
    "decisions that are right": "right",
}


def make_page(seeds: Sequence[Seed], arms: Sequence[str], given: argparse.Namespace) -> Page:
    """The page for the seeds that were run."""
    page = Page(
        f"CapFilt on Flickr8k, {percent(given.exchanged)}% of the captions exchanged ({len(seeds)} seeds)",
        "python bench/capfilt.py",
    )
    photos = "5,000" if given.shards == "[1-5]" else f"shard {given.shards}"
    page.say(
        f"Photos that are filtered: {photos} training photos;",
        f"of their captions {percent(seeds[0]['filter']['wrong'])}%",
        "are those of other photos; nothing that is trained knows which. Captioner and filter start there",
        f"({given.steps} steps of 64 captions) and learn on from 1,000 other photos with their own captions",
        f"({given.tuned} steps each). All see stored MobileNetV2 features; recipe `flickr8k/capfilt`.",
    )
    page.head("What the filter found, %")
    page.say("Of the captions that came with the photos. 95% intervals resample photos, not seeds.")
    rows = [
        [name, *(_interval([seed["filter"][key]], 100.0) for seed in seeds), _mean(seeds, key)]
        for name, key in SHARES.items()
    ]
    rows.append(
        ["a right caption scores above a wrong one", *(percent(seed["filter"]["ranking"]) for seed in seeds)]
    )
    rows[-1].append(_deviating([100 * seed["filter"]["ranking"] for seed in seeds]))
    page.table(["share", *(f"seed {seed}" for seed in given.seeds), "mean ± deviation"], rows)
    page.say(*_kept(seeds))
    page.head("What the captions teach a new model")
    page.say(
        f"`flickr8k/capfilt_student`, {given.student_steps} steps of 64 captions for every arm, judged on",
        "the test photos" if given.limit is None else f"{given.limit} test photos",
        "and the first caption of each, by contrast alone for retrieval; captions are written greedily.",
        "Each cell is the mean of the seeds with the mean ends of their 95% intervals over test photos, then the",
        "deviation between seeds.",
    )
    page.table(
        ["captions", *METRICS], [[arm, *(_cell(seeds, arm, name) for name in METRICS)] for arm in arms]
    )
    page.head("Seconds")
    page.table(
        ["stage", *(f"seed {seed}" for seed in given.seeds)],
        [
            *(
                [name, *_seconds(seeds, lambda one, name=name: one["seconds"][name])]
                for name in seeds[0]["seconds"]
            ),
            *(
                [f"new model, {arm}", *_seconds(seeds, lambda one, arm=arm: one["arms"][arm]["seconds"])]
                for arm in arms
            ),
        ],
    )
    return page


def _kept(seeds: Sequence[Seed]) -> list[str]:
    """How many captions each arm's data set has."""
    said = []
    for arm in seeds[0]["counts"]:
        parts = []
        for origin in seeds[0]["counts"][arm]:
            written, kept = (
                np.mean([seed["counts"][arm][origin][key] for seed in seeds]) for key in ("written", "kept")
            )
            if written:
                parts.append(f"{kept:,.0f} of {written:,.0f} {origin} captions")
        said.append(f"`{arm}` keeps {' and '.join(parts)}.")
    return said


def _found(seed: Seed, arm: str, name: str) -> tuple[dict[str, float], float]:
    keys, scale = METRICS[name]
    found = seed["arms"][arm]
    for key in keys:
        found = found[key]
    return found, scale


def _cell(seeds: Sequence[Seed], arm: str, name: str) -> str:
    found = [_found(seed, arm, name)[0] for seed in seeds]
    scale = METRICS[name][1]
    apart = spread([one["value"] for one in found]).deviation if len(seeds) > 1 else float("nan")
    digits = 1 if scale > 1 else 3
    between = f" ± {scale * apart:.{digits}f}" if len(seeds) > 1 else ""
    return _interval(found, scale) + between


def _interval(found: Sequence[Mapping[str, float]], scale: float) -> str:
    value, low, high = (
        scale * float(np.mean([one[key] for one in found])) for key in ("value", "low", "high")
    )
    digits = 1 if scale > 1 else 3
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _mean(seeds: Sequence[Seed], key: str) -> str:
    return _deviating([100 * seed["filter"][key]["value"] for seed in seeds])


def _deviating(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = spread(values)
    return f"{found.mean:.1f} ± {found.deviation:.1f}"


def _seconds(seeds: Sequence[Seed], read: Callable[[Seed], float]) -> list[str]:
    return [f"{read(seed):.0f}" for seed in seeds]
