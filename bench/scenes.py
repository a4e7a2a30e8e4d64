"""What the demo's two frozen models know before they are joined: questions in words, attributes read linearly.

The language model reads a scene as phrases, one vector a thing, and answers one question; every pair asked about is
one of its split's own. From the vision encoder, ridge regression on seen pairs reads colour, shape and size out of the
patches of each quarter that holds a thing. Where both are good at pairs that training never showed, what the demo lacks
is in the strip between them.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from results import Page, named, percent
from torch import Tensor

from isthmus.build.workshop import Workshop, open_workshop, vision_of
from isthmus.config.load import load_recipe
from isthmus.core.batch import IGNORED
from isthmus.core.options import RunOptions
from isthmus.data.collate import collate
from isthmus.data.samples import Phrase, Sample, Turn
from isthmus.data.scenes import Scenes
from isthmus.data.scenes.captions import phrases
from isthmus.data.scenes.scene import Scene
from isthmus.data.scenes.vocabulary import COLOURS, KINDS, PLACES, SHAPES, SIZES
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.run.load import load

_SPLITS = ("train", "val", "test")
_ATTRIBUTES = {"colour": tuple(COLOURS), "shape": tuple(SHAPES), "size": tuple(SIZES)}
_ALPHA = 10.0
_ROWS_AT_ONCE = 100


def main() -> int:
    """Probe both and write the page."""
    parser = argparse.ArgumentParser(
        description="Probe the demo's frozen models; writes docs/results/scenes.md."
    )
    parser.add_argument("--run", type=Path, default=None, help="a demo run; the shipped models by default")
    parser.add_argument("--questions", type=int, default=1000, help="questions a split")
    parser.add_argument("--pictures", type=int, default=3000, help="pictures that the ridge learns from")
    parser.add_argument("--splits", nargs="+", choices=_SPLITS, default=_SPLITS)
    parser.add_argument(
        "--print", action="store_true", help="print only; choose on val, then write the page once"
    )
    given = parser.parse_args()
    if given.run is None:
        workshop = open_workshop(load_recipe("demo"), RunOptions(), tokenizer_folder=None)
    else:
        workshop = load(given.run).workshop
    with torch.inference_mode():
        answers = {split: _answers(workshop, split, given.questions) for split in given.splits}
        readings = _readings(workshop, given.splits, given.pictures)
    page = _page(answers, readings, given)
    if given.print:
        print(page.text())
    else:
        page.write(
            "scenes", {"answers": answers, "readings": readings, "run": given.run and named(given.run)}
        )
    return 0


def _page(
    answers: Mapping[str, Mapping[str, tuple[int, int]]],
    readings: Mapping[str, Mapping[str, tuple[int, int]]],
    given: argparse.Namespace,
) -> Page:
    of = "the shipped models" if given.run is None else named(given.run)
    page = Page(f"What {of} know before they are joined", " ".join(["python bench/scenes.py", *sys.argv[1:]]))
    page.head("The language model: questions about a described scene")
    page.say(
        f"{given.questions} questions a split, right in %; right is an answer whose every token is the likeliest."
    )
    page.table(
        ["pairs", "all", *KINDS],
        [[split, *(_share(found[kind]) for kind in ("all", *KINDS))] for split, found in answers.items()],
    )
    page.head("The vision encoder: what a linear map reads in a thing's quarter")
    page.say(
        f"Ridge regression (alpha {_ALPHA:g}) on one-hot attributes, from a quarter's patches, fitted on the things of",
        f"{given.pictures} training pictures; things of 1,000 other pictures a split, right in % (number of things).",
    )
    page.table(
        ["things", *_ATTRIBUTES],
        [
            [name, *(_share(found[one], with_count=True) for one in _ATTRIBUTES)]
            for name, found in readings.items()
        ],
    )
    return page


def _share(found: tuple[int, int], *, with_count: bool = False) -> str:
    right, total = found
    return "-" if total == 0 else percent(right / total) + (f" ({total})" if with_count else "")


def _answers(workshop: Workshop, split: str, count: int) -> dict[str, tuple[int, int]]:
    """Right answers and questions, for each kind and for all."""
    model, processor = workshop.model, workshop.processor
    assert isinstance(model, VisionLanguageModel)
    found: defaultdict[str, list[bool]] = defaultdict(list)
    # Training's first worlds are what the models learnt from; this seed is none of theirs.
    world = Scenes(split=split, seed=900)
    for start in range(0, count, _ROWS_AT_ONCE):
        examples = [world.example(index) for index in range(start, min(start + _ROWS_AT_ONCE, count))]
        asked = [_sample(scene, question.text, question.answer) for scene, question in examples]
        rows = [processor.row(sample, rows="text_answers", choice=0) for sample in asked]
        batch = collate(rows, pad_id=processor.pad_id)
        assert batch.token_ids is not None
        assert batch.targets is not None
        assert batch.attention_mask is not None
        hidden = model.language(model.language.embed(batch.token_ids, batch.joined_ids), batch.attention_mask)
        guesses = model.language.logits(hidden[:, :-1]).argmax(-1)
        targets = batch.targets[:, 1:]
        right = ((guesses == targets) | (targets == IGNORED)).all(dim=1)
        for (_, question), one in zip(examples, right.tolist(), strict=True):
            found[question.kind].append(one)
            found["all"].append(one)
    return {kind: (sum(found[kind]), len(found[kind])) for kind in ("all", *KINDS)}


def _sample(scene: Scene, question: str, answer: str) -> Sample:
    shown = tuple(Phrase(phrase) for phrase in phrases(scene))
    turns = (Turn("user", (*shown, question)), Turn("assistant", (answer,)))
    return Sample(id=str(scene.key), origin="a scene in words", turns=turns)


def _readings(workshop: Workshop, splits: Sequence[str], count: int) -> dict[str, dict[str, tuple[int, int]]]:
    """Things whose attribute was read right, and how many there are, seen pairs and each split's own apart."""
    learnt = Scenes(split="train", seed=900)
    features, words = _things(workshop, [learnt.scene(index) for index in range(count)])
    maps = {
        name: _ridge(features, [row[at] for row in words], _ATTRIBUTES[name])
        for at, name in enumerate(_ATTRIBUTES)
    }
    found = {}
    for split in splits:
        world = Scenes(split=split, seed=901)
        features, words = _things(workshop, [world.scene(index) for index in range(1000)])
        own = np.array([(colour, shape) in world.subjects for colour, shape, _ in words])
        read = {name: np.array(_ATTRIBUTES[name])[maps[name](features).argmax(1)] for name in _ATTRIBUTES}
        for group, chosen in ((f"{split}: its own pairs", own), (f"{split}: pairs of training", ~own)):
            if chosen.any():
                found[group] = {
                    name: (int((read[name] == [row[at] for row in words])[chosen].sum()), int(chosen.sum()))
                    for at, name in enumerate(_ATTRIBUTES)
                }
    return found


def _things(workshop: Workshop, scenes: Sequence[Scene]) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """The patches of each thing's quarter as one vector, and the thing's colour, shape and size."""
    features, words = [], []
    for scene, quarters in zip(scenes, _quarters(workshop, scenes), strict=True):
        for thing in scene.things:
            features.append(quarters[PLACES.index(scene.place(thing))].numpy())
            words.append((thing.colour, thing.shape, thing.size))
    return np.stack(features), words


def _quarters(workshop: Workshop, scenes: Sequence[Scene]) -> Iterator[Tensor]:
    vision, images, world = vision_of(workshop.model), workshop.images, Scenes()
    assert images is not None
    for start in range(0, len(scenes), _ROWS_AT_ONCE):
        some = scenes[start : start + _ROWS_AT_ONCE]
        patches = vision(torch.stack([images(world.picture(scene), "scene") for scene in some]))
        side = round(patches.shape[1] ** 0.5)
        yield from rearrange(patches, "b (v y h x) d -> b (v h) (y x d)", v=2, h=2, y=side // 2, x=side // 2)


def _ridge(features: np.ndarray, truths: Sequence[str], choices: Sequence[str]) -> partial[np.ndarray]:
    """A closed-form map from features to a score for each choice."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    inputs = (features - mean) / scale
    targets = np.eye(len(choices))[[choices.index(truth) for truth in truths]]
    weights = np.linalg.solve(
        inputs.T @ inputs + _ALPHA * np.eye(inputs.shape[1]), inputs.T @ (targets - targets.mean(0))
    )
    return partial(_scores, mean, scale, weights, targets.mean(0))


def _scores(
    mean: np.ndarray, scale: np.ndarray, weights: np.ndarray, offset: np.ndarray, features: np.ndarray
) -> np.ndarray:
    return (features - mean) / scale @ weights + offset


if __name__ == "__main__":
    sys.exit(main())
