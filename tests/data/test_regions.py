"""RefCOCO and Visual Genome: boxes in shares of the picture, asked about both ways."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import DataError
from isthmus.core.sizes import Size
from isthmus.data.sources.regions import Box, read_refcoco, read_visual_genome

from .annotation_files import genome_files, names, refcoco_files, spoil, talk


@pytest.mark.parametrize(
    ("space", "box"), [("padded", "[0.25, 0.38, 0.75, 0.62]"), ("picture", "[0.25, 0.25, 0.75, 0.75]")]
)
def test_refcoco(tmp_path: Path, space: Any, box: str) -> None:
    """400 x 200 in a 400 square: 100 rows above. (50 + 100) / 400 and (150 + 100) / 400, by hand."""
    source = read_refcoco(*refcoco_files(tmp_path), tmp_path, space=space)
    assert len(source) == 20
    kinds = {sample.kind for sample in source}
    assert kinds == {"describe", "locate"}
    for sample in source:
        asked, answer = talk(sample)
        if sample.kind == "locate":
            assert asked == (
                "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: "
                "the lady in blue."
            )
            assert answer == box
        else:
            assert asked == f"<image>\nPlease provide a short description for this region: {box}."
            assert answer == "the lady in blue"
    again = read_refcoco(*refcoco_files(tmp_path), tmp_path, space=space)
    assert [talk(sample) for sample in again] == [talk(sample) for sample in source]
    other = read_refcoco(*refcoco_files(tmp_path), tmp_path, space=space, seed=1)
    assert [talk(sample) for sample in other] != [talk(sample) for sample in source]
    assert len(read_refcoco(*refcoco_files(tmp_path), tmp_path, split="testA")) == 1


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_published_pickle_is_read_as_its_list(tmp_path: Path, protocol: int) -> None:
    refs, instances = refcoco_files(tmp_path)
    published = tmp_path / "refs(unc).p"
    published.write_bytes(pickle.dumps(json.loads(refs.read_text()), protocol=protocol))
    rows, same = (read_refcoco(file, instances, tmp_path) for file in (refs, published))
    assert [talk(sample) for sample in rows] == [talk(sample) for sample in same]
    assert [sample.id for sample in rows] == [sample.id for sample in same]
    published.write_bytes(pickle.dumps([{"split": "train"}], protocol=protocol))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p row 0 has no 'ref_id'"):
        read_refcoco(published, instances, tmp_path)
    published.write_bytes(pickle.dumps({"refs": []}, protocol=protocol))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p holds an object; expected a list"):
        read_refcoco(published, instances, tmp_path)


def test_visual_genome(tmp_path: Path) -> None:
    source = read_visual_genome(*genome_files(tmp_path), tmp_path, space="picture")
    assert len(source) == 10
    assert set(names(source)) == {"VG_100K_2/1.jpg"}
    every = read_visual_genome(*genome_files(tmp_path), tmp_path, most=99, space="picture")
    said = {int(sample.id): " ".join(talk(sample)) for sample in every}
    assert sorted(said) == [0, *range(2, 15)]
    assert "[0.00, 0.00, 0.03, 0.50]" in said[0]  # 5 of its 10 pixels lie inside: 0.025 of 200
    assert "[0.70, 0.00, 0.75, 0.50]" in said[14]
    assert all(f"thing {number}" in words for number, words in said.items())
    whole = read_visual_genome(*genome_files(tmp_path), tmp_path, per_picture=True)
    assert [len(sample.turns) for sample in whole] == [20]
    assert talk(whole[0])[0].startswith("<image>\nPlease provide")
    assert not any("<image>" in words for words in talk(whole[0])[1:])


@given(
    size=st.builds(Size, st.integers(1, 2000), st.integers(1, 2000)),
    box=st.builds(
        Box,
        left=st.floats(-300, 2500),
        top=st.floats(-300, 2500),
        width=st.floats(0, 3000),
        height=st.floats(0, 3000),
    ),
    space=st.sampled_from(["padded", "picture"]),
)
def test_coordinates_lie_between_0_and_1_and_in_order(size: Size, box: Box, space: Any) -> None:
    left, top, right, bottom = json.loads(box.within(size).words(size, space))
    assert 0 <= left <= right <= 1
    assert 0 <= top <= bottom <= 1


def test_bad_rows_are_named(tmp_path: Path) -> None:
    refs, instances = refcoco_files(tmp_path)
    spoil(refs, lambda c: c[3].update(ann_id=8))
    with pytest.raises(
        DataError, match=r"refs\.json row 3 names a picture or box that .*instances\.json lacks"
    ):
        read_refcoco(refs, instances, tmp_path)
    regions, data = genome_files(tmp_path)
    spoil(regions, lambda c: c[0]["regions"][2].update(x="a"))
    with pytest.raises(
        DataError, match=r"regions\.json row 0, 'regions' 2, has 'x' = 'a'; expected a number"
    ):
        read_visual_genome(regions, data, tmp_path)
    size = r"{}.* has 'width' = {}; expected a number of pixels from 1 on"
    spoil(refs, lambda c: c[3].update(ann_id=7))
    spoil(instances, lambda c: c["images"][0].update(width=0))
    with pytest.raises(DataError, match=size.format(r"instances\.json, 'images' 0,", 0)):
        read_refcoco(refs, instances, tmp_path)
    spoil(regions, lambda c: c[0]["regions"][2].update(x=1))
    spoil(data, lambda c: c[0].update(width=-3))
    with pytest.raises(DataError, match=size.format(r"image_data\.json row 0", -3)):
        read_visual_genome(regions, data, tmp_path)
