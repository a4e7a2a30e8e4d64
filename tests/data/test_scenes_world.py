"""The world is a pure function of its arguments and keeps held-out compositions to their split."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from isthmus.core.errors import UsageError
from isthmus.data.samples import Phrase
from isthmus.data.scenes import (
    TEST_PAIRS,
    TRAINING_PAIRS,
    VALIDATION_PAIRS,
    Question,
    Scene,
    Scenes,
    read_words,
    words,
)
from isthmus.data.scenes.vocabulary import COLOURS, SHAPES
from isthmus.data.sources.scenes import SceneSource, Variation

FINGERPRINT = """
import hashlib
from isthmus.data.scenes import Scenes
world = Scenes(split="val", seed=3, aspect=(0.5, 2))
examples = [world.example(i) for i in range(40)]
told = [(each, world.captions(each[0]), world.questions(each[0])) for each in examples]
told += [world.imagined(7), world.series(5), world.clip(6), world.picture(world.scene(1)).tobytes()]
print(hashlib.sha256(repr(told).encode()).hexdigest())
"""


def texts(world: Scenes, scene: Scene) -> list[str]:
    """Everything said about a scene, each question with its answer."""
    asked = [f"{question.text} {question.answer} ." for question in world.questions(scene)]
    return world.captions(scene) + asked


def reading(world: Scenes, index: int) -> list[str]:
    """What a language model reads about an imagined scene: phrases, then a caption, or questions with answers."""
    source = SceneSource(
        split=world.split, num_samples=index + 1, seed=world.seed, variation=Variation(exchanged=0.3)
    )
    turns = source.text_sample(index).turns
    phrases = [part.words for part in turns[0].parts if isinstance(part, Phrase)]
    return [
        *phrases,
        *(f"{one.text} {two.text}" for one, two in zip(turns[::2], turns[1::2], strict=True)),
    ]


def named_pairs(text: str) -> set[tuple[str, str]]:
    """Pairs a text names as a phrase, or gives by asking for the colour of a shape or the reverse."""
    singular = {plural: shape for shape, plural in SHAPES.items()}
    tokens = [singular.get(token, token) for token in text.split()]
    found = {pair for pair in itertools.pairwise(tokens) if pair[0] in COLOURS and pair[1] in SHAPES}
    if match := re.search(r"what colour is the (\w+) \? (\w+)", text):
        found.add((match[2], match[1]))
    if match := re.search(r"what shape is the (\w+) thing \? (\w+)", text):
        found.add((match[1], match[2]))
    return {pair for pair in found if pair[1] in SHAPES and pair[0] in COLOURS}


def test_other_processes_draw_the_same_world() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == hashlib.sha256().digest_size * 2


def test_order_of_asking_changes_nothing_and_seeds_and_splits_do() -> None:
    forward = [Scenes().scene(index) for index in range(20)]
    world = Scenes()
    assert [world.scene(index) for index in reversed(range(20))] == forward[::-1]
    assert [Scenes(seed=1).scene(index) for index in range(20)] != forward
    assert len({scene.key for scene in forward}) == 20


def test_the_image_size_changes_only_the_scale() -> None:
    small, big = Scenes(image_size=64).scene(5), Scenes(image_size=128).scene(5)
    assert [thing.pair for thing in small.things] == [thing.pair for thing in big.things]
    for one, other in zip(small.things, big.things, strict=True):
        assert other.centre == pytest.approx([2 * value for value in one.centre])


def test_splits_share_no_held_out_pair_and_training_has_every_word() -> None:
    parts = [set(TRAINING_PAIRS), set(VALIDATION_PAIRS), set(TEST_PAIRS)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(COLOURS) * len(SHAPES)
    assert {pair.colour for pair in TRAINING_PAIRS} == set(COLOURS)
    assert {pair.shape for pair in TRAINING_PAIRS} == set(SHAPES)


def test_training_neither_shows_nor_names_a_held_out_pair() -> None:
    world, allowed, seen = Scenes(), set(TRAINING_PAIRS), set()
    for index in range(1200):
        scene, question = world.example(index)
        said = [*texts(world, scene), *reading(world, index), f"{question.text} {question.answer}"]
        if index < 100:
            series, clip = world.series(index), world.clip(index)
            said += [*series.captions, *clip.captions]
            said += [f"{each.text} {each.answer}" for each in (*series.questions, *clip.questions)]
        named = set().union(*map(named_pairs, said))
        assert named | {thing.pair for thing in scene.things} <= allowed
        seen |= named
    assert seen == allowed


@pytest.mark.parametrize(("split", "own"), [("val", VALIDATION_PAIRS), ("test", TEST_PAIRS)])
def test_held_out_splits_show_and_ask_their_own_pairs_only(
    split: str, own: tuple[tuple[str, str], ...]
) -> None:
    world, asked = Scenes(split=split), set()
    for index in range(500):
        scene, question = world.example(index)
        shown = {thing.pair for thing in scene.things}
        assert shown & set(own)
        assert shown <= set(own) | set(TRAINING_PAIRS)
        assert set().union(*map(named_pairs, texts(world, scene))) <= set(own) | set(TRAINING_PAIRS)
        assert set().union(*map(named_pairs, reading(world, index))) <= set(TRAINING_PAIRS)
        for each in [question, *world.questions(scene)]:
            assert each.about in own
            assert each.about in shown or each.answer == "no"
        asked.add(question.about)
    assert asked == set(own)


def test_the_word_list_is_complete_and_has_nothing_more() -> None:
    said: set[str] = set()
    read: set[str] = set()
    for split in ("train", "val", "test"):
        world = Scenes(split=split)
        for index in range(500):
            scene = world.scene(index)
            lines = texts(world, scene)
            if index < 150:
                series, clip = world.series(index), world.clip(index)
                lines += [*series.captions, *clip.captions]
                read.update(" ".join(reading(world, index)).split())
                lines += [f"{each.text} {each.answer}" for each in (*series.questions, *clip.questions)]
            said.update(" ".join(lines).split())
    assert tuple(sorted(said)) == words()
    assert tuple(sorted(read - said)) == read_words()


def test_series_are_asked_where_a_pair_is() -> None:
    world = Scenes(split="test")
    assert {len(world.series(index).scenes) for index in range(40)} == {1, 2, 3, 4}
    for index in range(40):
        series = world.series(index, 4)
        assert len(series.scenes) == len(series.captions) == 4
        for question in series.questions:
            showing = [number for number, scene in enumerate(series.scenes) if scene.count(question.about)]
            assert [("first", "second", "third", "fourth")[number] for number in showing] == [question.answer]
            assert question.about in TEST_PAIRS


def test_clips_move_the_way_they_say() -> None:
    world = Scenes(aspect=(1 / 3, 3))
    for index in range(60):
        clip = world.clip(index, 5)
        motion: Question = clip.questions[0]
        centres = [frame.things[0].centre for frame in clip.frames]
        dx, dy = centres[-1].x - centres[0].x, centres[-1].y - centres[0].y
        way = ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")
        assert motion.answer == way
        assert all(way in caption for caption in clip.captions)
        canvas = clip.frames[0].canvas
        for frame in clip.frames:
            left, top, right, bottom = frame.things[0].box
            assert 0 <= left < right <= canvas.width
            assert 0 <= top < bottom <= canvas.height


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: Scenes(split="dev"),
        lambda: Scenes(image_size=4),
        lambda: Scenes(aspect=(0.2, 1)),
        lambda: Scenes(aspect=(1, 3.5)),
        lambda: Scenes(aspect=(2, 1)),
        lambda: Scenes(overlap=0.9),
        lambda: Scenes().scene(-1),
        lambda: Scenes().series(0, 5),
        lambda: Scenes().series(0, 0),
        lambda: Scenes().clip(0, 1),
    ],
)
def test_bad_options_are_refused_in_one_sentence(mistake: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"^[^.]*(\d\.\d[^.]*)*\.$"):
        mistake()
