"""Judging a classifier: how often the class is right, with the real picture and with each control."""

from typing import Any

import numpy as np
import torch

from isthmus.core.errors import UsageError
from isthmus.data.classes import ClassProcessor
from isthmus.data.collate import collate
from isthmus.data.samples import Source
from isthmus.evaluation.verdict import answers_json, judge, judge_kinds
from isthmus.models.classifier import Classifier
from isthmus.run.load import LoadedRun
from isthmus.run.pictures import with_controls

_PICTURES_AT_ONCE = 64


def judge_classification(loaded: LoadedRun, source: Source, *, seed: int) -> dict[str, Any]:
    """Accuracy, also by class, with the four pictures and the verdict.

    Raises:
        UsageError: The run holds no classifier.
    """
    model, processor = loaded.workshop.model, loaded.workshop.processor
    if not isinstance(model, Classifier) or not isinstance(processor, ClassProcessor):
        raise UsageError(f"{loaded.directory.path} holds no classifier; judge it by another task")
    sources, ids = with_controls(loaded, source, seed=seed)
    with loaded.number_format():
        named = {name: _named(model, processor, one) for name, one in sources.items()}
    truths = [source.sample(index).label for index in range(len(source))]
    right = {name: np.array(said) == np.array(truths) for name, said in named.items()}
    generator = np.random.default_rng(seed)
    verdict = judge(right, generator=generator, pictures=ids)
    shares = answers_json(verdict.answers)
    by_class = judge_kinds(right, truths, generator=generator, pictures=ids)
    return {
        "task": "classification",
        "metrics": {"accuracy": shares["real"]},
        "controls": verdict.to_json(),
        "kinds": {name: answers_json(one.answers) for name, one in by_class.items()},
        "n": len(truths),
        "examples": [
            {
                "row": row,
                "question": "",
                "answer": named["real"][row],
                "blank_answer": named["blank"][row],
                "truth": truth,
                "kind": truth,
                "right": bool(right["real"][row]),
            }
            for row, truth in enumerate(truths)
        ],
    }


@torch.inference_mode()
def _named(model: Classifier, processor: ClassProcessor, source: Source) -> list[str]:
    """The likeliest class of each sample's picture."""
    device, said = next(model.parameters()).device, []
    for start in range(0, len(source), _PICTURES_AT_ONCE):
        chosen = range(start, min(start + _PICTURES_AT_ONCE, len(source)))
        rows = [processor.row(source.sample(index), choice=0) for index in chosen]
        scores = model.encode(collate(rows, pad_id=processor.pad_id).to(device)).class_scores
        assert scores is not None
        said += [processor.classes[number] for number in scores.argmax(dim=1).tolist()]
    return said
