"""Prompts and few-shot examples from plain files, and the chat that they make with a picture's facts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

from isthmus.config.instructions import KINDS, Kind
from isthmus.core.errors import DataError
from isthmus.core.files import file_hash
from isthmus.core.randomness import seed_of
from isthmus.curation.instructions.checks import Rejected, parsed
from isthmus.curation.instructions.facts import Facts, read_facts
from isthmus.curation.instructions.writer import Message, Request

SHIPPED = Path(__file__).parent / "prompts"
"""KIND.txt has the instructions and KIND.jsonl the examples of a kind; detail_questions.txt one question a line."""


@final
@dataclass(frozen=True, kw_only=True)
class Example:
    """Facts, and the reply that was written about them by hand."""

    facts: Facts
    question: str
    reply: str


@final
@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What writers are told.

    Attributes:
        instructions: The system message of each kind.
        examples: Examples of each kind.
        detail_questions: What a detailed description answers; one is drawn for each picture.
        digest: A hash of the files.
    """

    instructions: dict[Kind, str]
    examples: dict[Kind, tuple[Example, ...]]
    detail_questions: tuple[str, ...]
    digest: str

    @classmethod
    def read(cls, folder: Path = SHIPPED) -> Self:
        """The prompts of a folder.

        Raises:
            DataError: A file is missing, empty or damaged.
        """
        names = [f"{kind}{end}" for kind in KINDS for end in (".txt", ".jsonl")] + ["detail_questions.txt"]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder} has no {missing[0]}; expected {', '.join(names)}")
        questions = tuple(
            line for line in _text(folder / "detail_questions.txt").splitlines() if line.strip()
        )
        return cls(
            instructions={kind: _text(folder / f"{kind}.txt") for kind in KINDS},
            examples={kind: _examples(folder / f"{kind}.jsonl") for kind in KINDS},
            detail_questions=questions,
            digest="".join(file_hash(folder / name)[:8] for name in names),
        )

    def request(self, facts: Facts, kind: Kind, *, seed: int) -> Request:
        """The chat that asks for one kind about one picture."""
        messages = [Message(role="system", content=self.instructions[kind])]
        for example in self.examples[kind]:
            messages.append(Message(role="user", content=_asked(example.facts, example.question)))
            messages.append(Message(role="assistant", content=example.reply))
        question = ""
        if kind == "detail":
            number = seed_of(seed, "detail question", facts.id) % len(self.detail_questions)
            question = self.detail_questions[number]
        messages.append(Message(role="user", content=_asked(facts, question)))
        return Request(facts=facts, kind=kind, messages=tuple(messages))


def _asked(facts: Facts, question: str) -> str:
    return f"{facts.text}\n\nQuestion: {question}" if question else facts.text


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text; restore it") from error
    if not text:
        raise DataError(f"{file} is empty; expected instructions or questions")
    return text


def _examples(file: Path) -> tuple[Example, ...]:
    """Rows of facts that also have `turns`; of a detailed description the question is what the writer is given."""
    found = []
    lines = [line for line in _text(file).split("\n") if line.strip()]
    for facts, line in zip(read_facts(file), lines, strict=True):
        reply = json.dumps({"turns": json.loads(line).get("turns")})
        turns = parsed(reply)
        if isinstance(turns, Rejected):
            raise DataError(f"{facts.origin} is no example: {turns.found}; expected questions with answers")
        question = turns[0].question if file.stem == "detail" else ""
        found.append(Example(facts=facts, question=question, reply=reply))
    return tuple(found)
