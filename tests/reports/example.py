"""A realistic report from made-up numbers and drawn pictures, for the tests of the page."""

import math
import random
from datetime import UTC, datetime

from PIL import Image, ImageDraw

from isthmus.reports.content import (
    Chart,
    Controls,
    Curve,
    Estimate,
    Header,
    KindRow,
    MetricRow,
    MetricTable,
    ModelTables,
    NextCommand,
    PartRow,
    Provenance,
    ReportContent,
    Results,
    StageCurves,
    StageRow,
    Verdict,
    standard_control,
)
from isthmus.reports.examples import (
    AnswerExample,
    CaptionExample,
    Examples,
    Picture,
    RetrievalExample,
    RetrievalHit,
)

COLOURS = ("red", "blue", "green", "orange", "purple")
HOSTILE = '<img src=x onerror="alert(1)">'


def scene(seed: int, size: int = 64) -> Picture:
    """Draw a few shapes on a pale ground, anti-aliased."""
    rng = random.Random(seed)
    image = Image.new("RGB", (4 * size, 4 * size), rng.choice(["#e8e6df", "#d9e2e8", "#efe9d8"]))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 4)):
        x, y, r = (rng.randint(10, 3 * size) for _ in range(3))
        r = 20 + r // 4
        colour = rng.choice(COLOURS)
        rng.choice([draw.ellipse, draw.rectangle])((x, y, x + r, y + r), fill=colour)
    return Picture(image=image.resize((size, size), Image.Resampling.LANCZOS), name=f"scenes-test-{seed}")


def estimate(value: float, n: int = 2000) -> Estimate:
    """Return a fraction with its normal 95% interval."""
    half = 1.96 * math.sqrt(value * (1 - value) / n)
    return Estimate(value=value, interval=(value - half, value + half), n=n)


def controls() -> Controls:
    """Return the five conditions of the demo, with four kinds of question."""
    values = {"real": 0.931, "blank": 0.312, "shuffled": 0.294, "wrong": 0.337, "blind": 0.385}
    kinds = {"colour": 0.97, "count": 0.86, "left or right": 0.94, "shape": 0.95}
    return Controls(
        controls=tuple(standard_control(name, estimate(value)) for name, value in values.items()),
        kinds=tuple(
            KindRow(
                kind=kind, estimates=(estimate(real, 500), *(estimate(0.2 + 0.04 * i, 500) for i in range(4)))
            )
            for kind, real in kinds.items()
        ),
    )


def curves() -> tuple[StageCurves, ...]:
    """Return two stages: 900 noisy training losses each, a few validation points, the shuffled-picture gap."""
    rng = random.Random(0)
    stages: list[StageCurves] = []
    for name, start in (("align", 4.2), ("instruct", 1.1)):
        train = tuple(
            (step, (start * math.exp(-step / 250) + 0.25) * math.exp(rng.gauss(0, 0.12)))
            for step in range(1, 901)
        )
        held_out = tuple((step, start * math.exp(-step / 250) + 0.31) for step in range(100, 901, 100))
        shuffled = tuple((step, start * math.exp(-step / 2500) + 0.9) for step in range(100, 901, 100))
        losses = Chart(title="Training loss", curves=(Curve(label="train", points=train),), log=True)
        validation = Chart(
            title="Validation loss",
            curves=(
                Curve(label="right picture", points=held_out),
                Curve(label="shuffled", points=shuffled),
            ),
        )
        stages.append(StageCurves(stage=name, charts=(losses, validation)))
    return tuple(stages)


def answers(num_rows: int = 12) -> tuple[AnswerExample, ...]:
    """Return questions about drawn scenes; every fourth answer is a mistake."""
    return tuple(
        AnswerExample(
            pictures=tuple(scene(10 * index + i) for i in range(3 if index == 5 else 1)),
            question=f"What colour is the shape left of the {COLOURS[index % 5]} square?",
            answer=COLOURS[(index + (index % 4 == 3)) % 5],
            truth=COLOURS[index % 5],
            right=index % 4 != 3,
            kind="colour",
            blank_answer="red",
        )
        for index in range(num_rows)
    )


def model() -> ModelTables:
    """Return the parts and stages of the demo."""
    return ModelTables(
        parts=(
            PartRow(name="vision", kind="ViT 64 px, patch 8, 4 layers of 128", parameters=824_320),
            PartRow(
                name="connector", kind="MLP, 2 layers", parameters=65_920, trained_in=("align", "instruct")
            ),
            PartRow(name="fusion", kind="splice", parameters=0),
            PartRow(
                name="language",
                kind="LLaMA, 4 layers of 128, LoRA rank 16",
                parameters=1_215_616,
                trained_in=("instruct",),
                trainable=131_072,
            ),
        ),
        stages=(
            StageRow(
                name="align", steps=900, seconds=61.2, loss=0.291, trainable=65_920, trains=("connector",)
            ),
            StageRow(
                name="instruct",
                steps=900,
                seconds=118.7,
                loss=0.264,
                trainable=196_992,
                trains=("connector", "language (LoRA)"),
            ),
        ),
        features="20,000 pictures, 64 patches of 128 numbers in float16, 328 MB, written once in 14 s.",
    )


def demo() -> ReportContent:
    """Return the report that a good demo run writes."""
    return ReportContent(
        header=Header(
            recipe="demo",
            verdict=Verdict(
                text="answers right: 93% with the picture, 31% with a blank one, 29% with another row's picture: "
                "it looks at the picture",
                state="sees",
            ),
            finished=datetime(2025, 5, 28, 14, 3, tzinfo=UTC),
            machine="2 CPU cores, 8 GB, no accelerator",
            seconds=252,
            peak_memory_bytes=1_430_000_000,
        ),
        results=Results(controls=controls()),
        curves=curves(),
        examples=Examples(
            answers=answers(),
            chosen_by="Evenly spaced over the 2,000 rows of the test set, with at least three mistakes.",
        ),
        model=model(),
        provenance=Provenance(
            command="isthmus demo --out runs/demo --seed 0",
            seed=0,
            versions=(("isthmus", "0.1.0"), ("torch", "2.13.0"), ("transformers", "5.23.0")),
            recipe_yaml="name: demo\nseed: 0\nmodel:\n  kind: vision_language_model\n",
            recipe_sha256="3f1c" * 16,
            notes=("Test compositions (colour and shape together) never occur in training.",),
        ),
        next_commands=(
            NextCommand(
                command='isthmus ask runs/demo photo.png "What colour is it?"', why="Ask about a picture."
            ),
            NextCommand(command="isthmus show runs/demo", why="See every part and its parameters."),
        ),
    )


def photos(picture: Picture) -> ReportContent:
    """Return a report of captions and retrievals over one photo, with hostile texts among them."""
    table = MetricTable(
        title="Captions against five references",
        columns=("real", "shuffled"),
        rows=(
            MetricRow(
                name="CIDEr",
                estimates=(Estimate(value=0.462, interval=(0.43, 0.494)), Estimate(value=0.09)),
            ),
            MetricRow(name="BLEU-4", estimates=(Estimate(value=0.172, interval=(0.16, 0.185)), None)),
        ),
    )
    both_ways = MetricTable(
        title="Retrieval",
        columns=("text to image", "image to text"),
        rows=(MetricRow(name="R@1", estimates=(estimate(0.162, 5000), estimate(0.211, 1000))),),
        measure="percent",
    )
    hits = tuple(RetrievalHit(picture=picture, right=index == 2) for index in range(5))
    missed = tuple(RetrievalHit(picture=picture, right=False) for _ in range(5))
    return ReportContent(
        header=Header(recipe="flickr8k-caption"),
        results=Results(metrics=(table, both_ways)),
        examples=Examples(
            captions=tuple(
                CaptionExample(
                    picture=picture,
                    caption=caption,
                    references=("A brown dog runs over dry grass .", "A dog plays with a ball ."),
                    score="CIDEr 0.61",
                    other_caption="a man in a red shirt is standing on a street",
                )
                for caption in ("a brown dog is running through the grass", HOSTILE, "")
            ),
            retrievals=(
                RetrievalExample(query="a dog on grass", hits=hits, rank=3, num_candidates=1000),
                RetrievalExample(
                    query=HOSTILE, hits=missed, rank=47, num_candidates=1000, right_picture=picture
                ),
            ),
        ),
    )
