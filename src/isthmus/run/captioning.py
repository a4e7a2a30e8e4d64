"""Judging captions: the official scores with the real photo and with each control, by row and for the corpus."""

from typing import Any

import numpy as np

from isthmus.data.samples import Source
from isthmus.evaluation.captioning import CaptionScores, compare_captions, score_captions
from isthmus.run.load import LoadedRun
from isthmus.run.pictures import with_controls
from isthmus.run.questions import write_all


def judge_captions(loaded: LoadedRun, source: Source, *, seed: int) -> dict[str, Any]:
    """CIDEr, BLEU and ROUGE-L with intervals, against all references and against all but the first.

    The second line compares with the human one: caption 0 of each photo scored against the others.
    """
    sources, _ = with_controls(loaded, source, seed=seed)
    samples = [source.sample(index) for index in range(len(source))]
    references = [list(sample.captions) for sample in samples]
    written = {name: write_all(loaded, one, rows="captions") for name, one in sources.items()}
    generator = np.random.default_rng(seed)
    scores = {name: score_captions(captions, references) for name, captions in written.items()}
    controls: dict[str, Any] = {
        name: _estimates(one, generator) for name, one in scores.items() if name != "real"
    }
    best = max(controls, key=lambda name: scores[name].corpus()["cider"])
    gap = compare_captions(scores["real"], scores[best], generator=generator)
    controls |= {"best_control": best, "real_minus_best": {name: one.to_json() for name, one in gap.items()}}
    result: dict[str, Any] = {
        "task": "captioning",
        "metrics": _estimates(scores["real"], generator),
        "controls": controls,
        "n": len(samples),
        "examples": [
            {
                "row": row,
                "caption": written["real"][row],
                "other_caption": written["shuffled"][row],
                "references": references[row],
                "cider": float(scores["real"].cider[row]),
            }
            for row in range(len(samples))
        ],
    }
    if min(len(row) for row in references) > 1:
        fewer = [row[1:] for row in references]
        human = score_captions([row[0] for row in references], fewer)
        result["against_all_but_first_reference"] = {
            "model": _estimates(score_captions(written["real"], fewer), generator),
            "human_first_caption": _estimates(human, generator),
        }
    return result


def _estimates(scores: CaptionScores, generator: np.random.Generator) -> dict[str, Any]:
    return {name: one.to_json() for name, one in scores.estimates(generator=generator).items()}
