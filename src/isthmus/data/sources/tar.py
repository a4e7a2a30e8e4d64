"""A bounded reader of plain tar files: regular files only, nothing is unpacked, every limit is stated.

The standard library's `tarfile` follows links, reads sparse maps and extended headers of any size; data from strangers
needs less. Positions are found once by reading the headers; contents are read with `os.pread`, so that threads and
forked processes share one file descriptor without sharing a position.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from isthmus.core.errors import DataError
from isthmus.data.pictures import MAX_BYTES, BadSample

BLOCK = 512
MAX_MEMBERS = 1_000_000
_REGULAR = (b"0", b"\0")
_DIRECTORY = b"5"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file inside a tar file.

    Attributes:
        name: Its path as written in the header.
        offset: Where its contents begin, in bytes from the start of the tar file.
        size: Length of its contents, in bytes.
    """

    name: str
    offset: int
    size: int


class TarFile:
    """The regular files of one tar file, found by one pass over the headers.

    Raises:
        DataError: The file is missing, truncated, compressed or no tar file, or a member is a link, has a path that
            leaves the archive, or is larger than 64 MiB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path} cannot be opened ({error.strerror}); expected a tar file") from error
        try:
            self.members = _scan(path, self._descriptor)
        except DataError:
            self.close()
            raise

    def read(self, member: Member) -> bytes:
        """The contents of one member.

        Raises:
            BadSample: The file became shorter since it was opened, or the disk fails.
        """
        try:
            data = os.pread(self._descriptor, member.size, member.offset)
        except OSError as error:
            raise BadSample(
                f"{self.path}:{member.name} cannot be read ({error.strerror}); check the disk"
            ) from error
        if len(data) != member.size:
            raise BadSample(
                f"{self.path}:{member.name} gave {len(data):,} bytes instead of {member.size:,} "
                f"at offset {member.offset:,}; "
                "the file changed while it was read"
            )
        return data

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        # The descriptor is unset when opening failed in the constructor.
        if "_descriptor" in self.__dict__:
            self.close()


def _scan(path: Path, descriptor: int) -> tuple[Member, ...]:
    length = os.fstat(descriptor).st_size
    members: list[Member] = []
    offset = 0
    while True:
        header = os.pread(descriptor, BLOCK, offset)
        if len(header) == 0 and offset > 0 and offset == length:
            raise DataError(
                f"{path} ends at offset {offset:,} without the closing blocks of a tar file; copy it again"
            )
        if len(header) < BLOCK:
            raise DataError(
                f"{path} is truncated at offset {offset:,}: a tar header has {BLOCK} bytes, found {len(header)}"
            )
        if header == b"\0" * BLOCK:
            return tuple(members)
        name, kind, size = _parse(path, header, offset)
        start = offset + BLOCK
        if start + size > length:
            raise DataError(
                f"{path} is truncated at offset {start:,}: member '{name}' needs {size:,} bytes, "
                f"{max(length - start, 0):,} are there"
            )
        if kind in _REGULAR:
            members.append(_checked(path, Member(name=name, offset=start, size=size)))
        elif kind != _DIRECTORY:
            found = _KINDS.get(kind, f"an entry of type {kind!r}")
            raise DataError(
                f"{path} holds {found} named '{name}' at offset {offset:,}; only regular files are read (ustar)"
            )
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{path} holds more than {MAX_MEMBERS:,} files; split it into smaller shards")
        offset = start + -(-size // BLOCK) * BLOCK


def _parse(path: Path, header: bytes, offset: int) -> tuple[str, bytes, int]:
    try:
        stated = int(header[148:156].strip(b" \0") or b"x", 8)
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        name = header[:100].rstrip(b"\0").split(b"\0")[0].decode()
        prefix = header[345:500].split(b"\0")[0].decode() if header[257:263] == b"ustar\0" else ""
    except ValueError as error:
        raise DataError(
            f"{path} has no readable tar header at offset {offset:,}; expected an uncompressed tar file"
        ) from error
    if stated != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise DataError(
            f"{path} has a damaged tar header at offset {offset:,} (wrong checksum); expected an uncompressed tar file"
        )
    return (f"{prefix}/{name}" if prefix else name), header[156:157], size


def _checked(path: Path, member: Member) -> Member:
    if not member.name or "\\" in member.name or "\0" in member.name:
        raise DataError(
            f"{path} holds a file with the unusable name {member.name!r} at offset {member.offset:,}"
        )
    pure = PurePosixPath(member.name)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(
            f"{path} holds the path '{member.name}', which leaves the archive; expected plain relative paths"
        )
    if member.size > MAX_BYTES:
        raise DataError(
            f"{path}:{member.name} has {member.size:,} bytes; at most {MAX_BYTES:,} a file are read"
        )
    return member
