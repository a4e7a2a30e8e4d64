"""Which things a text names: labels with their plurals and synonyms, found as whole words, the longest first."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import final

from isthmus.core.errors import DataError

SYNONYMS = Path(__file__).parent / "prompts" / "synonyms.txt"
"""One label a line, `label: word, word`: COCO's with other words for them; not `orange`, which mostly is a colour."""

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_DENIALS = {
    "no",
    "not",
    "without",
    "neither",
    "nor",
    "never",
    "isn't",
    "aren't",
    "doesn't",
    "don't",
    "cannot",
    "can't",
}
_REACH = 4
"""How many words before a thing may deny it: `there is no dog`, `not a large dog`."""


@final
class Vocabulary:
    """The things that a set of pictures has labels for, and where one of them is common those that are common, too.

    So what may be said of a picture does not hang on which others are in the set.

    Args:
        labels: All labels of the set.
        synonyms: Common labels, with other words for them.
    """

    def __init__(self, labels: Iterable[str], synonyms: Mapping[str, Iterable[str]]) -> None:
        self._boxed = {label.lower() for label in labels}
        common = synonyms if self._boxed & synonyms.keys() else ()
        self._labels: dict[tuple[str, ...], set[str]] = {}
        for label in self._boxed.union(common):
            for name in (label, *synonyms.get(label, ())):
                for form in (name, plural(name)):
                    self._labels.setdefault(tuple(words_of(form)), set()).add(label)
        self._longest = max(map(len, self._labels), default=0)

    def strangers(self, text: str, present: Iterable[str]) -> list[str]:
        """The words for things that a text speaks of as there, and that are none of the labels present."""
        there = {label.lower() for label in present}
        words = words_of(text)
        found: list[str] = []
        for at, form in self._forms(words):
            denied = _DENIALS & set(words[max(at - _REACH, 0) : at])
            if not denied and not self._labels[form] & there:
                found.append(" ".join(form))
        return found

    def only_said(self, captions: Iterable[str]) -> set[str]:
        """The labels that captions name and no picture of the set has a box of: nobody looked for these things."""
        forms = [form for caption in captions for _, form in self._forms(words_of(caption))]
        return {label for form in forms for label in self._labels[form]} - self._boxed

    def _forms(self, words: list[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The places where words for things begin, and these words."""
        at = 0
        while at < len(words):
            form = self._form_at(words, at)
            if form is not None:
                yield at, form
            at += 1 if form is None else len(form)

    def _form_at(self, words: list[str], at: int) -> tuple[str, ...] | None:
        for length in range(min(self._longest, len(words) - at), 0, -1):
            form = tuple(words[at : at + length])
            if form in self._labels:
                return form
        return None


def words_of(text: str) -> list[str]:
    """Lower-case words; `don't` is one, and so is `dog` of `dog's`."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    return [word.removesuffix("'s") for word in words]


def plural(name: str) -> str:
    """The regular English plural of a name's last word."""
    *before, last = name.split()
    if last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    elif last.endswith("fe"):
        last = f"{last[:-2]}ves"
    else:
        last += "s"
    return " ".join([*before, last])


def read_synonyms(file: Path = SYNONYMS) -> dict[str, tuple[str, ...]]:
    """Synonyms by label.

    Raises:
        DataError: The file cannot be read, or a line is something else.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text; restore it") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        label, colon, names = line.partition(":")
        if not colon and line.strip():
            raise DataError(f"{file} line {number} has no colon; expected `label: word, word`")
        if colon:
            found[label.strip().lower()] = tuple(name.strip() for name in names.split(",") if name.strip())
    return found
