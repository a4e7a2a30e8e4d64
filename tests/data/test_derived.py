"""Sources made of other sources."""

import json
from pathlib import Path

import pytest

from isthmus.build.sources import build_source
from isthmus.config.derived import ExchangedSource, PartSource, RecaptionedSource
from isthmus.config.load import load_recipe
from isthmus.core.errors import DataError, RecipeError
from isthmus.data.samples import MemorySource, Sample
from isthmus.data.sources.derived import Exchanged, Recaptioned


def source(count: int = 400) -> MemorySource:
    return MemorySource(
        [
            Sample(id=f"s{at}", origin=f"s{at}", captions=tuple(f"{at}:{place}" for place in range(3)))
            for at in range(count)
        ]
    )


def test_as_many_captions_as_asked_are_exchanged_for_those_of_others_and_the_rest_stay() -> None:
    whole = source()
    noisy = Exchanged(whole, share=0.4, seed=3)
    told = []
    for at in range(len(whole)):
        for place, (caption, is_exchanged) in enumerate(
            zip(noisy.sample(at).captions, noisy.exchanged(at), strict=True)
        ):
            told.append(is_exchanged)
            own = caption.split(":")[0] == str(at)
            assert own is not is_exchanged
            assert is_exchanged or caption == f"{at}:{place}"
    assert abs(sum(told) / len(told) - 0.4) < 0.042  # three standard deviations of 1,200 draws
    again, other = Exchanged(whole, share=0.4, seed=3), Exchanged(whole, share=0.4, seed=4)
    assert [one.captions for one in again] == [one.captions for one in noisy]
    assert [one.captions for one in other] != [one.captions for one in noisy]
    assert [one.captions for one in Exchanged(whole, share=0.0, seed=3)] == [one.captions for one in whole]
    assert all(all(Exchanged(whole, share=1.0, seed=3).exchanged(at)) for at in range(50))
    with pytest.raises(DataError, match="expected at least 2 samples"):
        Exchanged(source(1), share=0.4, seed=0)


def lines(file: Path, *rows: object) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return file


def test_curated_captions_stand_in_for_the_samples_own(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "captions.jsonl",
        {"index": 1, "id": "s1", "web": ["a"], "synthetic": ["b", "c"]},
        {"index": 2, "id": "s2", "web": [], "synthetic": []},
        {"index": 7, "id": "s7", "web": [], "synthetic": ["d"]},
    )
    said = {
        origin: [(one.id, one.captions) for one in Recaptioned(source(9), file, origin=origin)]
        for origin in ("all", "web", "synthetic")
    }
    assert said == {
        "all": [("s1", ("a", "b", "c")), ("s7", ("d",))],
        "web": [("s1", ("a",))],
        "synthetic": [("s1", ("b", "c")), ("s7", ("d",))],
    }
    read = Recaptioned(source(9), file)
    assert [read.num_captions(at) for at in range(2)] == [3, 1]
    with pytest.raises(DataError, match="speaks of sample 7, but its source has 7"):
        Recaptioned(source(7), file)
    other = lines(tmp_path / "other.jsonl", {"index": 1, "id": "x", "web": ["a"], "synthetic": []})
    with pytest.raises(DataError, match="says that sample 1 is x, but it is s1"):
        Recaptioned(source(9), other).sample(0)
    with pytest.raises(DataError, match=r"keeps no caption \(synthetic\)"):
        Recaptioned(source(9), other, origin="synthetic")
    with pytest.raises(DataError, match="line 1 is no object with index, id, web and synthetic"):
        Recaptioned(source(9), lines(tmp_path / "bad.jsonl", {"index": 1}))
    with pytest.raises(DataError, match="cannot be read"):
        Recaptioned(source(9), tmp_path / "none.jsonl")


def test_a_recipe_builds_them_and_refuses_what_does_not_stand_above(tmp_path: Path) -> None:
    recipe = load_recipe("tiny/clip")
    scenes = recipe.data["train"]
    file = lines(tmp_path / "c.jsonl", {"index": 3, "id": "train-8", "web": ["x"], "synthetic": []})
    data = {
        "all": scenes,
        "some": PartSource(of="all", first=5, count=20),
        "noisy": ExchangedSource(of="some", share=1.0),
        "kept": RecaptionedSource(of="some", captions=str(file)),
    }
    assert len(build_source(data["some"], data)) == 20
    whole = build_source(data["all"], data)
    assert build_source(data["some"], data)[0].id == whole[5].id
    assert build_source(data["noisy"], data)[0].captions[0] not in whole[5].captions
    assert build_source(data["kept"], data)[0].captions == ("x",)
    with pytest.raises(DataError, match="begins at sample 5,000,000"):
        build_source(PartSource(of="all", first=5_000_000), data)
    with pytest.raises(
        RecipeError, match=r"data\.part\.of: found 'later', allowed: a source that stands above it"
    ):
        load_recipe("tiny/clip", ["data.part={kind: part, of: later}"])
