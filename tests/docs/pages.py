"""The documents as tests read them: links, blocks of code, the tree."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page it stands in, its language, its text."""

    page: str
    language: str
    text: str


def text_of(name: str) -> str:
    """A page by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str) -> list[Block]:
    """All blocks in a language."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        found += [
            Block(name, kind, body)
            for kind, body in _FENCE.findall(page.read_text(encoding="utf-8"))
            if kind == language
        ]
    return found


def links(page: Path) -> list[str]:
    """Where a page's links lead, blocks of code left out."""
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings as GitHub writes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def tree() -> list[tuple[str, str]]:
    """The annotated tree of the README: path from the root, and what it is for."""
    text = next(block.text for block in blocks("text") if block.text.startswith("README.md"))
    return list(_entries(text))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    above: list[str] = []
    for line in text.splitlines():
        match = re.fullmatch(r"( *)(\S+) +(\S.*)", line)
        assert match, f"no purpose in the line {line!r}"
        depth = len(match[1]) // 2
        above = [*above[:depth], match[2]]
        yield "".join(above), match[3]
