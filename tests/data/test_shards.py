"""Tar shards: what is read, and what is refused with file and offset."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from isthmus.core.errors import DataError
from isthmus.data.pictures import BadSample
from isthmus.data.sources.shards import Shards, escaped, expand
from isthmus.data.sources.tar import TarFile


def picture(colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, colour, colour)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pairs(keys: str) -> dict[str, bytes]:
    members = {}
    for key in keys:
        members[f"{key}.png"] = picture(ord(key))
        members[f"{key}.json"] = json.dumps({"captions": [f"{key} one", f"{key} two"]}).encode()
    return members


def test_pictures_and_captions_meet_by_key(tmp_path: Path) -> None:
    write(tmp_path / "s-000.tar", pairs("ab"))
    write(
        tmp_path / "s-001.tar",
        {"c.txt": b"c alone\n", "sub/c.txt": b"deep", "sub/c.png": picture(3), "c.png": picture(2)},
    )
    source = Shards(str(tmp_path / "s-{000..001}.tar"))
    assert [sample.id for sample in source] == ["a", "b", "sub/c", "c"]
    assert source[1].captions == ("b one", "b two")
    assert source[1].images[0].name == "s-000.tar:b.png"
    assert source[1].images[0].picture().getpixel((0, 0)) == (98, 98, 98)
    assert source[3].captions == ("c alone",)
    assert source.num_captions(0) == 2
    assert source.format == "tar shards (2 file(s), 4 keys, pictures with json or txt)"
    assert [sample.id for sample in source[1:3]] == ["b", "sub/c"]


def test_members_are_the_ones_tarfile_finds(tmp_path: Path) -> None:
    long = "x" * 60 + "/" + "y" * 80 + ".png"
    path = write(tmp_path / "a.tar", {**pairs("ab"), long: b"12345", "empty.txt": b""})
    with tarfile.open(path) as theirs:
        expected = [(m.name, m.size, m.offset_data) for m in theirs.getmembers()]
    ours = TarFile(path)
    assert [(m.name, m.size, m.offset) for m in ours.members] == expected
    assert ours.read(ours.members[-2]) == b"12345"


def test_threads_share_one_file(tmp_path: Path) -> None:
    source = Shards(str(write(tmp_path / "a.tar", pairs("abcdefgh"))))
    with ThreadPoolExecutor(4) as pool:
        colours = list(pool.map(lambda i: source[i % 8].images[0].picture().getpixel((0, 0))[0], range(200)))
    assert colours == [97 + i % 8 for i in range(200)]


@pytest.mark.parametrize("cut", [100, 512 + 10, 2048])
def test_a_truncated_archive_is_named_with_its_offset(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.tar", pairs("ab"))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tar .*offset"):
        Shards(str(path))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\b.png"])
def test_paths_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"leaves the archive|unusable name"):
        Shards(str(write(tmp_path / "a.tar", {name: b"x"})))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME]
)
def test_only_regular_files_are_read(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="only regular files are read"):
        Shards(str(tmp_path / "a.tar"))


def test_huge_members_are_refused_before_reading(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 2**30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(2**30 + 2048)
    with pytest.raises(DataError, match="1,073,741,824 bytes"):
        Shards(str(path))


def test_what_is_no_tar_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"zip" * 400)
    with pytest.raises(DataError, match="uncompressed tar file"):
        Shards(str(tmp_path / "a.tar"))


def test_duplicate_keys_and_empty_sets_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", pairs("ab"))
    write(tmp_path / "b.tar", pairs("b"))
    with pytest.raises(DataError, match=r"'b' occurs in .*a\.tar and again in .*b\.tar"):
        Shards(str(tmp_path / "*.tar"))
    with pytest.raises(DataError, match="hold no sample"):
        Shards(str(write(tmp_path / "c.tar", {})))
    with pytest.raises(DataError, match="no file matches"):
        Shards(str(tmp_path / "none-*.tar"))


def test_a_key_without_its_partner_is_a_bad_sample(tmp_path: Path) -> None:
    source = Shards(
        str(
            write(
                tmp_path / "a.tar",
                {"a.png": picture(), "b.json": b'{"caption": "b"}', "c.png": b"", "c.json": b"["},
            )
        )
    )
    with pytest.raises(BadSample, match="no text beside its picture"):
        source[0]
    with pytest.raises(BadSample, match="no picture beside its text"):
        source[2].images[0].read()
    with pytest.raises(BadSample, match="no valid UTF-8 or JSON"):
        source[1]


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    """JSON can spell it, and no tokenizer takes it; a whole pair is one character."""
    entries = {"a.png": picture(), "a.json": rb'{"caption": "\ud83d"}', "b.png": picture()}
    source = Shards(str(write(tmp_path / "a.tar", entries | {"b.json": rb'{"caption": "\ud83d\udc15"}'})))
    with pytest.raises(BadSample, match="no valid UTF-8 or JSON"):
        source[0]
    assert source[1].captions == ("\U0001f415",)


def test_braces_and_stars(tmp_path: Path) -> None:
    for name in ("a-01.tar", "a-02.tar", "b-01.tar"):
        (tmp_path / name).touch()
    assert [p.name for p in expand([f"{tmp_path}/{{b,a}}-0*.tar"])] == ["b-01.tar", "a-01.tar", "a-02.tar"]
    assert [p.name for p in expand([f"{tmp_path}/a-{{01..02}}.tar"])] == ["a-01.tar", "a-02.tar"]


@pytest.mark.parametrize(
    "name", ["a[1]", "{1..3}", "run{a,b}", "[{x}]", "what?", "**", "}{", "]][[", "${home}", "[!a]", "plain"]
)
def test_an_escaped_path_names_itself_alone(tmp_path: Path, name: str) -> None:
    for folder in (name, "a1", "1", "2", "runa", "x", "whatx", "z", "!"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "pairs-0.tar").touch()
    own = tmp_path / name / "pairs-0.tar"
    assert expand([f"{escaped(tmp_path / name)}/pairs-*.tar"]) == [own]
    assert expand([escaped(own)]) == [own]


def test_a_file_with_brackets_in_its_name_is_itself(tmp_path: Path) -> None:
    for name in ("a[1].tar", "a1.tar"):
        (tmp_path / name).touch()
    assert expand([f"{tmp_path}/a[1].tar"]) == [tmp_path / "a[1].tar"]
    assert expand([f"{tmp_path}/a[12].tar"]) == [tmp_path / "a1.tar"]
