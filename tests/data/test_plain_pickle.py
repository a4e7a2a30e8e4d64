"""Pickles of plain data, against Python's own reader; what could run code is refused and never runs."""

import collections
import datetime
import decimal
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.core.errors import DataError
from isthmus.data.sources.plain_pickle import load_plain_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
SLOW_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, content: bytes) -> Any:
    file = folder / "refs.p"
    file.write_bytes(content)
    return load_plain_pickle(file)


def theirs(content: bytes) -> Any:
    """What Python's own reader makes of it; texts of Python 2 as bytes."""
    return pickle.loads(content, encoding="bytes")  # noqa: S301


@SLOW_FIXTURE
@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_what_python_reads(tmp_path: Path, value: Any, protocol: int) -> None:
    written = pickle.dumps(value, protocol=protocol)
    found = read(tmp_path, written)
    assert found == value == theirs(written)
    assert repr(found) == repr(value)  # True is no 1, and 1.0 no 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_parts_and_tuples_of_every_length(tmp_path: Path, protocol: int) -> None:
    shared = {"a": [1, 2]}
    value = [shared, shared, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), list(range(1200))]
    found = read(tmp_path, pickle.dumps(value, protocol=protocol))
    assert found == [shared, shared, [], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], list(range(1200))]
    assert found[0] is found[1]


# Written by hand as Python 2 does it: texts are bytes, in protocol 0 between quotes, and long numbers end with an L.
PYTHON_2 = {
    0: (
        b"(lp0\n(dp1\nS'sent'\np2\nS'a \"b\" \\'c\\' \\xc3\\xa9\\n'\np3\nsS'raw'\np4\nS'\\xe9'\np5\nsVn\np6\n"
        b"L12345678901L\nsS't'\np7\n(I1\nF2.5\nI01\ntp8\nsa."
    ),
    2: (
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x0da \"b\" 'c' \xc3\xa9\nq\x03U\x03rawq\x04U\x01\xe9q\x05X\x01\x00\x00\x00nq\x06"
        b"\x8a\x05\x35\x1c\xdc\xdf\x02U\x01tq\x07K\x01G@\x04\x00\x00\x00\x00\x00\x00\x88\x87q\x08ua."
    ),
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_texts_of_python_2_are_utf_8_or_else_latin_1(tmp_path: Path, protocol: int) -> None:
    expected = {"sent": "a \"b\" 'c' é\n", "raw": "é", "n": 12345678901, "t": [1, 2.5, True]}
    assert read(tmp_path, PYTHON_2[protocol]) == [expected]
    row = theirs(PYTHON_2[protocol])[0]
    assert (row[b"raw"], row[b"sent"].decode()) == (b"\xe9", expected["sent"])
    assert (row["n"], row[b"t"]) == (expected["n"], (1, 2.5, True))


class Harmful:
    """What a stranger's file may hold: reading it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_looked_up_or_called(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    written = pickle.dumps([{"ref_id": 1}, Harmful(target)], protocol=protocol)
    with pytest.raises(
        DataError, match=r"refs\.p holds more than lists, .*instruction b.* at byte [0-9]+.* as JSON once"
    ):
        read(tmp_path, written)
    assert not target.exists()
    theirs(written)
    assert target.exists(), "the same file does run code where Python's reader loads it"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        datetime.date(2020, 1, 1),
        decimal.Decimal(1),
        np.float64(1.5),
        len,
        Path,
        {1, 2},
        1j,
    ],
    ids=repr,
)
def test_other_things_are_refused(tmp_path: Path, value: object, protocol: int) -> None:
    with pytest.raises(DataError, match="holds more than lists"):
        read(tmp_path, pickle.dumps([value], protocol=protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nmkdir\n(S'x'\ntR.",
        b"(S'x'\nios\nmkdir\n.",
        b"\x80\x02\x82\x01.",
        b"Pname\n.",
        b"(cos\nmkdir\nS'x'\no.",
        b"N}b.",
    ],
)
def test_every_instruction_that_names_or_builds_something_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="holds more than lists"):
        read(tmp_path, content)


@SLOW_FIXTURE
@given(content=st.binary(max_size=60) | st.lists(st.sampled_from(PYTHON_2[0].split(b"\n"))).map(b"\n".join))
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    said = ""
    try:
        read(tmp_path, content)
    except DataError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_a_file_that_breaks_off_is_refused(tmp_path: Path, protocol: int) -> None:
    whole = PYTHON_2[protocol]
    for length in range(len(whole)):
        with pytest.raises(
            DataError, match=r"refs\.p is no whole pickle \(it breaks off or goes wrong at byte [0-9]+\)"
        ):
            read(tmp_path, whole[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"}K\x01K\x02s.",  # a key that is no text
        b"(S'a'\nd.",  # a key without a value
        b"K\x01K\x02a.",  # put into a number
        b"\x8a\x09" + bytes(9) + b".",  # 72 bits
        b"L" + b"9" * 5000 + b"L\n.",
        b"S'a\\q'\n.",
        b"Sa\n.",
        b"h\x05.",
        b"T\xff\xff\xff\xff.",
        b"\x8d" + b"\xff" * 8 + b".",
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="is no whole pickle"):
        read(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.p cannot be read \(No such file"):
        load_plain_pickle(tmp_path / "none.p")
