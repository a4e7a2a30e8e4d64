"""Plain data from a file in Python's pickle format, read without Python's own reader, which can run code.

A pickle is a list of instructions for a small machine with a stack. Most of them make lists, dictionaries, texts and
numbers; a few look up anything that Python can import and call it. This reader knows the first kind and has no word for
the second, so there is nothing for a file to call. It follows protocols 0 to 5 as far as plain data needs them.
"""

import re
import struct
from pathlib import Path
from typing import Any, final

from isthmus.core.errors import DataError

MAX_BYTES = 512 * 2**20
"""The largest file that is read; 50,000 references made up like RefCOCO's have 14 to 23 MB and take 10 to 18 s."""

_CONSTANTS: dict[bytes, Any] = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_BYTE_TEXTS = {b"T": "<i", b"U": "<B"}
"""Texts of Python 2, which were bytes, with their length in front."""
_TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
"""Unicode with its length in front."""
_STORES = {b"q": "<B", b"r": "<I"}
_FETCHES = {b"h": "<B", b"j": "<I"}
_TUPLES = {b")": 0, b"\x85": 1, b"\x86": 2, b"\x87": 3}
_IGNORED = {b"\x80": 1, b"\x95": 8}
"""Instructions that only say how the file is laid out, with the bytes they take along."""
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\s\S]?)")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}
_WIDEST = 8
"""Bytes of the largest whole number: 64 bits."""


def load_plain_pickle(file: Path) -> Any:
    """The lists, dictionaries, texts, numbers, booleans and None that a pickle holds; tuples come as lists.

    Texts that Python 2 wrote as bytes are read as UTF-8, or as Latin-1 where they are none.

    Raises:
        DataError: The file is missing, too large or damaged, or it asks for anything else than plain data.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} is larger than {MAX_BYTES:,} bytes; write its list as JSON")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path") from error
    machine = _Machine(content)
    try:
        return machine.run()
    except _NotPlain as error:
        raise DataError(
            f"{file} holds more than lists, dictionaries, texts and numbers ({error}) and may run code where it is "
            "loaded; write its list as JSON once, where you trust it"
        ) from error
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"{file} is no whole pickle (it breaks off or goes wrong at byte {machine.at:,}); get it again from where "
            "it is published"
        ) from error


@final
class _NotPlain(Exception):
    """An instruction that plain data does not need."""


@final
class _Machine:
    """The stack, the marks on it, and what was stored under a number."""

    def __init__(self, content: bytes) -> None:
        self.at = 0
        self._content = content
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._stored: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow the instructions up to the one that ends them."""
        while True:
            start, word = self.at, self._take(1)
            if word == b".":
                return self._stack.pop()
            if word in _IGNORED:
                self._take(_IGNORED[word])
            elif not (self._make(word) or self._collect(word) or self._keep(word)):
                raise _NotPlain(f"instruction {word!r} at byte {start:,}")

    def _make(self, word: bytes) -> bool:
        """Put a new value on the stack."""
        if word in _CONSTANTS:
            value: Any = _CONSTANTS[word]
        elif word in _NUMBERS:
            value = self._number(_NUMBERS[word])
        elif word in _BYTE_TEXTS:
            value = _text(self._take(self._number(_BYTE_TEXTS[word])))
        elif word in _TEXTS:
            value = self._take(self._number(_TEXTS[word])).decode("utf-8")
        elif word in (b"\x8a", b"\x8b"):
            value = self._wide(self._number("<B" if word == b"\x8a" else "<i"))
        elif word in b"ILF":
            value = _written_number(word, self._line())
        elif word == b"S":
            value = _text(_unquoted(self._line()))
        elif word == b"V":
            value = self._line().decode("raw-unicode-escape")
        elif word in b"]}":
            value = [] if word == b"]" else {}
        else:
            return False
        self._stack.append(value)
        return True

    def _collect(self, word: bytes) -> bool:
        """Put values from the stack into lists and dictionaries."""
        match word:
            case b"(":
                self._marks.append(len(self._stack))
            case b"t" | b"l":
                self._stack.append(self._since_mark())
            case b"d":
                self._stack.append(self._fill({}, self._since_mark()))
            case b"a":
                value = self._stack.pop()
                self._top(list).append(value)
            case b"e":
                values = self._since_mark()
                self._top(list).extend(values)
            case b"s":
                value, key = self._stack.pop(), self._stack.pop()
                self._fill(self._top(dict), [key, value])
            case b"u":
                values = self._since_mark()
                self._fill(self._top(dict), values)
            case _ if word in _TUPLES:
                count = _TUPLES[word]
                values = self._cut(len(self._stack) - count)
                self._stack.append(values)
            case _:
                return False
        return True

    def _keep(self, word: bytes) -> bool:
        """Store the top of the stack under a number, or fetch what was stored."""
        if word in _STORES or word in (b"p", b"\x94"):
            if word == b"\x94":
                number = len(self._stored)
            else:
                number = int(self._line()) if word == b"p" else self._number(_STORES[word])
            self._stored[number] = self._stack[-1]
            return True
        if word in _FETCHES or word == b"g":
            number = int(self._line()) if word == b"g" else self._number(_FETCHES[word])
            self._stack.append(self._stored[number])
            return True
        return False

    def _take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self._content) - self.at:
            raise ValueError("the file ends too soon")
        self.at += count
        return self._content[self.at - count : self.at]

    def _line(self) -> bytes:
        end = self._content.index(b"\n", self.at)
        line = self._content[self.at : end]
        self.at = end + 1
        return line

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _wide(self, count: int) -> int:
        if count > _WIDEST:
            raise ValueError("a whole number is wider than 64 bits")
        return int.from_bytes(self._take(count), "little", signed=True)

    def _top(self, kind: type[list] | type[dict]) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError("a value is put into something that holds none")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        return self._cut(self._marks.pop())

    def _cut(self, start: int) -> list[Any]:
        """Take everything from a height of the stack on."""
        if not 0 <= start <= len(self._stack):
            raise ValueError("the stack holds too little")
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _fill(self, target: dict[str, Any], values: list[Any]) -> dict[str, Any]:
        keys = values[::2]
        if len(values) % 2 or not all(isinstance(key, str) for key in keys):
            raise ValueError("a key is no text or has no value")
        target.update(zip(keys, values[1::2], strict=True))
        return target


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unquoted(line: bytes) -> bytes:
    """The bytes that Python 2 wrote between quotes, as its `repr` does."""
    inner = line[1:-1]
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text is not between quotes")
    return _ESCAPE.sub(_unescaped, inner)


def _unescaped(found: re.Match[bytes]) -> bytes:
    sign = found[1]
    return bytes([int(sign[1:], 16)]) if sign.startswith(b"x") else _ESCAPES[sign]


def _written_number(word: bytes, line: bytes) -> float | int | bool:
    """A number that is written out: `01` and `00` are the booleans of protocol 0, an `L` ends Python 2's long ones."""
    if word == b"F":
        return float(line)
    if word == b"I" and line in (b"00", b"01"):
        return line == b"01"
    number = int(line.removesuffix(b"L"))
    if not -(2**63) <= number < 2**63:
        raise ValueError("a whole number is wider than 64 bits")
    return number
