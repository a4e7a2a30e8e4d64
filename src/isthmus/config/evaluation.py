"""How a finished run is judged."""

from typing import Annotated, Literal

from pydantic import Field

from isthmus.config.base import Count, NotNegative, Positive, Settings, Texts


class Decoding(Settings):
    """How text is written, one token after the other."""

    method: Literal["greedy", "beam", "sample"] = "greedy"
    """The likeliest token, the likeliest of several sequences, or chance."""
    beams: Count = 1
    """Sequences kept by beam search; above 1 only with `method: beam`."""
    temperature: Positive = 1.0
    """What logits are divided by when sampling."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sampling looks at the likeliest tokens that together have this probability."""
    max_new_tokens: Count = 32
    """Longest answer in tokens."""
    length_penalty: NotNegative = 1.0
    """Beam scores are divided by length to this power."""


Task = Literal[
    "captioning",
    "questions",
    "retrieval",
    "zero_shot",
    "probe",
    "regions",
    "reconstruction",
    "classification",
]
"""What a model can be asked to do."""


class Evaluation(Settings):
    """What is measured on which source."""

    task: Task
    """What the model is asked to do; `zero_shot` and `probe` name each picture's class, by prompts or by a linear
    classifier of its features, `regions` tells the marked thing from the others of its picture, `reconstruction`
    predicts hidden patches, `classification` names the class by the model's own head."""
    val: str
    """The source for choices."""
    test: str
    """The source that is touched once."""
    decoding: Decoding = Decoding()
    """How answers are written."""
    train: str | None = None
    """The source a `probe` learns from; it chooses its penalty on `val`."""
    prompts: Texts = ()
    """For `zero_shot`: sentences with `{}` in the place of the class, whose vectors are averaged; empty: a built-in
    list about photos."""
    rerank: Count | None = None
    """For `retrieval` by a model that matches: how many of the best by contrast the match ranks again; null: none."""
    prompt: str | None = None
    """What stands after the picture when captions are written; null: nothing."""
