"""Mixtures: weights and caps by count, pure in seed and index, text beside pictures, batches of one modality."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import DataError
from isthmus.core.randomness import order_of
from isthmus.data.mixture import Mixture, MixturePart
from isthmus.data.order import OPENING, RowOrder
from isthmus.data.pictures import BadSample
from isthmus.data.processor import Processor, Row
from isthmus.data.samples import BytesImage, ImagePart, MemorySource, Sample, Turn
from isthmus.data.stream import BatchStream, StreamOptions


def talks(count: int, *, pictures: bool = True, start: int = 0) -> MemorySource:
    images = (BytesImage(name="x", data=b""),) if pictures else ()
    turns = (Turn("user", (*(ImagePart(at) for at in range(len(images))), "a")), Turn("assistant", ("b",)))
    return MemorySource(
        [Sample(id=str(start + at), origin="f", images=images, turns=turns) for at in range(count)]
    )


def captioned(count: int) -> MemorySource:
    image = (BytesImage(name="x", data=b""),)
    return MemorySource(
        [
            Sample(id=str(at), origin="f", images=image, captions=("one", "two", "three"))
            for at in range(count)
        ]
    )


def counts(mixture: Mixture) -> Counter[str]:
    return Counter(sample.id.split("#")[0] for sample in mixture)


def test_weights_and_caps() -> None:
    mixture = Mixture(
        {
            "whole": MixturePart(source=talks(10)),
            "twice": MixturePart(source=talks(6), weight=2.5),
            "half": MixturePart(source=talks(8), weight=0.5),
            "capped": MixturePart(source=talks(50), cap=7),
        }
    )
    assert len(mixture) == 10 + 15 + 4 + 7
    assert mixture.format == "mixture (whole 10, twice 15, half 4, capped 7)"
    found = counts(mixture)
    assert {name: found[f"whole/{name}"] for name in map(str, range(10))} == {str(at): 1 for at in range(10)}
    twice = sorted(found[f"twice/{at}"] for at in range(6))
    assert twice == [2, 2, 2, 3, 3, 3]
    assert sum(name.startswith("half/") for name in found) == 4
    assert sum(name.startswith("capped/") for name in found) == 7
    assert len({sample.id for sample in mixture}) == len(mixture)


@given(seed=st.integers(0, 5), index=st.integers(0, 35), other=st.integers(0, 35))
def test_a_row_depends_on_seed_and_index_alone(seed: int, index: int, other: int) -> None:
    def made() -> Mixture:
        return Mixture(
            {
                "a": MixturePart(source=talks(30), cap=20),
                "b": MixturePart(source=captioned(16), rows="captions"),
            },
            seed=seed,
        )

    first, second = made(), made()
    second.sample(other)
    assert first.sample(index) == second.sample(index)


def test_another_seed_is_another_order_and_choice() -> None:
    def ids(seed: int) -> list[str]:
        return [sample.id for sample in Mixture({"a": MixturePart(source=talks(40), cap=20)}, seed=seed)]

    assert ids(0) != ids(1)
    assert set(ids(0)) != set(ids(1))


def test_a_cap_of_a_larger_weight_still_takes_no_more_samples() -> None:
    mixture = Mixture({"a": MixturePart(source=talks(50), cap=5, weight=3)})
    assert sorted(counts(mixture).values()) == [3] * 5


def test_any_stretch_holds_every_part() -> None:
    mixture = Mixture({"a": MixturePart(source=talks(500)), "b": MixturePart(source=talks(500))})
    share = sum(sample.id.startswith("a/") for sample in mixture[:200]) / 200
    assert 0.35 < share < 0.65  # four standard deviations of a fair draw are 0.14


def test_every_kind_of_row_becomes_a_conversation() -> None:
    mixture = Mixture(
        {
            "captions": MixturePart(source=captioned(30), rows="captions", prompt="Say."),
            "words": MixturePart(source=talks(5), rows="text_answers"),
        }
    )
    said = set()
    for at, sample in enumerate(mixture):
        assert mixture.has_pictures(at) == bool(sample.images)
        if sample.id.startswith("captions/"):
            assert sample.turns[0] == Turn("user", (ImagePart(0), "Say."))
            said.add(sample.turns[1].text)
        else:
            assert sample.images == ()
            assert sample.turns == (Turn("user", ("a",)), Turn("assistant", ("b",)))
    assert said == {"one", "two", "three"}


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(DataError, match="part 'b' gives no row: 1 sample"):
        Mixture({"a": MixturePart(source=talks(3)), "b": MixturePart(source=talks(1), weight=0.1)})
    mixture = Mixture({"a": MixturePart(source=captioned(3))})
    with pytest.raises(DataError, match="f has no conversation"):
        mixture.sample(0)


class Plain(Processor):
    """One token a row; some samples are bad."""

    def __init__(self, bad: tuple[str, ...] = ()) -> None:
        self.pad_id = 0
        self.bad = bad

    def row(self, sample: Sample, *, rows: str, choice: int, purpose: str = "training") -> Row:
        if sample.id in self.bad:
            raise BadSample(f"{sample.id} is damaged")
        return Row(sample_id=sample.id, token_ids=[1], targets=[1])


def mixed(pictures: int = 200, words: int = 100) -> Mixture:
    return Mixture(
        {
            "see": MixturePart(source=talks(pictures)),
            "read": MixturePart(source=talks(words, pictures=False)),
        }
    )


def grouped(source: Mixture, bad: tuple[str, ...] = (), **options: object) -> BatchStream:
    settings = {"rows": "conversations", "batch_size": 8, "workers": 0, "group_by_modality": True} | options
    return BatchStream(processor=Plain(bad), source=source, options=StreamOptions(**settings))


def kinds(stream: BatchStream, step: int) -> list[str]:
    return [name.split("/")[0] for batch in stream.micro_batches(step) for name in batch.sample_ids]


def test_grouped_batches_are_of_one_modality_and_ungrouped_ones_mixed() -> None:
    stream = grouped(mixed(), micro_batch_size=4)
    assert stream.steps_per_epoch == 200 // 8 + 100 // 8
    steps = [kinds(stream, step) for step in range(stream.steps_per_epoch)]
    assert all(len(set(step)) == 1 for step in steps)
    assert sum(step[0] == "see" for step in steps) == 25
    # The audit of the first steps needs pictures; after that the two are shuffled.
    assert [step[0] for step in steps[:OPENING]] == ["see"] * OPENING
    assert len({step[0] for step in steps[OPENING:20]}) == 2
    plain = grouped(mixed(), group_by_modality=False)
    assert any(len(set(kinds(plain, step))) == 2 for step in range(5))


def test_a_grouped_epoch_sees_each_row_at_most_once_and_almost_all() -> None:
    stream = grouped(mixed())
    names = [
        name
        for step in range(stream.steps_per_epoch)
        for batch in stream.micro_batches(step)
        for name in batch.sample_ids
    ]
    assert len(names) == len(set(names)) == 296
    later = [
        name for step in range(37, 74) for batch in stream.micro_batches(step) for name in batch.sample_ids
    ]
    assert later != names
    assert set(later) | set(names) == {sample.id for sample in mixed()}


def test_grouped_steps_are_pure() -> None:
    one, other = grouped(mixed()), grouped(mixed(), workers=2)
    with other:
        for step in (5, 4, 60, 38):
            assert [b.sample_ids for b in one.micro_batches(step)] == [
                b.sample_ids for b in other.micro_batches(step)
            ]


def test_a_bad_row_is_replaced_by_one_of_its_modality() -> None:
    stream = grouped(mixed(), bad=("see/3", "read/3"))
    for step in range(stream.steps_per_epoch):
        assert len(set(kinds(stream, step))) == 1
    assert stream.report().skipped == 2


def test_too_few_rows_of_a_modality_are_refused_and_none_are_fine() -> None:
    with pytest.raises(DataError, match=r"5 row\(s\) without pictures, fewer than one batch of 8"):
        grouped(mixed(words=5))
    only = grouped(Mixture({"see": MixturePart(source=talks(16))}))
    assert only.steps_per_epoch == 2


def test_an_order_without_groups_is_the_permutation_itself() -> None:
    order = RowOrder(num_rows=12, batch_size=4, seed=3, stage="align")
    assert order(1) == order_of(12, 3, "align", 1).tolist()
    assert order.is_alike(0, 1)
