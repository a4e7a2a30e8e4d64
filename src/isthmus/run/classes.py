"""Judging classes: the nearest of prompts' vectors to a picture's, or a linear probe of its features."""

from typing import Any

import numpy as np
import torch

from isthmus.config.evaluation import Evaluation
from isthmus.core.randomness import seed_of
from isthmus.data.samples import Source
from isthmus.evaluation.classes import PROMPTS, choose_probe, class_names, class_vectors, fit_probe
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.statistics import proportion
from isthmus.run.load import LoadedRun
from isthmus.run.pictures import mean_features
from isthmus.run.retrieval import compared, embed_pictures, embed_texts


def judge_zero_shot(
    loaded: LoadedRun, source: Source, prompts: tuple[str, ...], *, seed: int
) -> dict[str, Any]:
    """How often the class whose prompts are nearest to a picture is its own (Radford et al., 2021, section 3.1).

    The controls exchange the pictures, and take the first prompt alone.
    """
    model, processor = compared(loaded)
    labels = [source.sample(index).label for index in range(len(source))]
    classes = class_names(labels, origin=source.format)
    told = prompts or PROMPTS
    with loaded.number_format():
        images = embed_pictures(model, processor, source)
        sentences = [prompt.replace("{}", name) for name in classes for prompt in told]
        vectors = embed_texts(model, processor, sentences).unflatten(0, (len(classes), len(told)))
    truth = torch.tensor([classes.index(label) for label in labels])
    others = torch.as_tensor(shuffled(list(map(str, range(len(labels)))), seed_of(seed, "shuffled") % 2**32))

    def right(images: torch.Tensor, vectors: torch.Tensor) -> dict[str, Any]:
        named = (images @ class_vectors(vectors).T).argmax(dim=1)
        return _accuracy(named == truth, seed)

    return {
        "task": "zero_shot",
        "metrics": right(images, vectors),
        "controls": {"shuffled": right(images[others], vectors), "one prompt": right(images, vectors[:, :1])},
        "chance": 1 / len(classes),
        "classes": list(classes),
        "n": len(source),
        "examples": [],
    }


def judge_probe(loaded: LoadedRun, source: Source, settings: Evaluation, *, seed: int) -> dict[str, Any]:
    """How often a linear classifier of the frozen encoder's mean features is right; its penalty is chosen on `val`.

    The control learns from exchanged labels: what it gets right it owes to the features' number alone.
    """
    assert settings.train is not None
    sources = [loaded.workshop.source(settings.train), loaded.workshop.source(settings.val), source]
    labels = [[one.sample(index).label for index in range(len(one))] for one in sources]
    classes = class_names([*labels[0], *labels[1], *labels[2]], origin=sources[0].format)
    numbers = [torch.tensor([classes.index(label) for label in group]) for group in labels]
    with loaded.number_format():
        train, val, test = (mean_features(loaded, one).double() for one in sources)
    probe, penalty = choose_probe((train, numbers[0]), (val, numbers[1]), num_classes=len(classes))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(numbers[0])))
    mixed = fit_probe(train, numbers[0][order], num_classes=len(classes), penalty=penalty)
    return {
        "task": "probe",
        "metrics": _accuracy(probe(test) == numbers[2], seed),
        "controls": {"shuffled": _accuracy(mixed(test) == numbers[2], seed)},
        "chance": 1 / len(classes),
        "classes": list(classes),
        "penalty": penalty,
        "n": len(source),
        "examples": [],
    }


def _accuracy(right: torch.Tensor, seed: int) -> dict[str, Any]:
    return {"accuracy": proportion(right.numpy(), generator=np.random.default_rng(seed)).to_json()}
