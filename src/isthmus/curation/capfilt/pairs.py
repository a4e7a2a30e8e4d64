"""Kept pairs as a tar file that a recipe reads: `ROW.jpg` beside `ROW.json`, in WebDataset form."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from isthmus.core.files import replacing
from isthmus.curation.capfilt.blocks import Decided

_ENDINGS = {
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\x00": "tif",
    b"MM\x00*": "tif",
}
"""How files of each format begin; what begins otherwise is JPEG, the only other format that pictures are read from."""


def write_pairs(path: Path, decided: Sequence[Decided]) -> int:
    """Write the pictures that have a kept caption, each with all of those, and return how many there are.

    The bytes of a picture stay as they were, so features that are stored for it are found again. The file holds no
    times, owners or names of the machine: equal decisions give equal bytes. Without a pair there is no file.

    Raises:
        MachineError: The disk refuses.
    """
    chosen = [one for one in decided if one.kept and one.sample is not None]
    if not chosen:
        return 0
    with replacing(path) as unfinished, tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
        for one in chosen:
            assert one.sample is not None
            data = one.sample.images[0].read()
            record = {"id": one.sample.id, "captions": list(one.kept)}
            text = json.dumps(record, ensure_ascii=False).encode()
            for name, content in (
                (f"{one.row:08d}.{_ending(data)}", data),
                (f"{one.row:08d}.json", text),
            ):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
    return len(chosen)


def _ending(data: bytes) -> str:
    return next((ending for start, ending in _ENDINGS.items() if data.startswith(start)), "jpg")
