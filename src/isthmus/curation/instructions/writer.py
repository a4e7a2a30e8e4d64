"""Writers: whoever turns a request in words into a reply in words."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from isthmus.config.instructions import Kind
from isthmus.curation.instructions.facts import Facts


@final
@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a chat; texts alone, so that no picture can ever be sent."""

    role: Literal["system", "user", "assistant"]
    content: str


@final
@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a writer: one kind about one picture.

    Attributes:
        facts: The picture in words.
        kind: What to write.
        messages: The same as a chat: instructions, examples, facts.
    """

    facts: Facts
    kind: Kind
    messages: tuple[Message, ...]

    @property
    def key(self) -> str:
        """Names the request in the journal."""
        return f"{self.facts.id}/{self.kind}"


@final
@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a writer gave back.

    Attributes:
        text: Its words, unchecked.
        tokens_in: Tokens it read.
        tokens_out: Tokens it wrote.
        refused: Why it would not answer this one request; nothing was written then.
    """

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    refused: str = ""


class Writer(ABC):
    """Writes replies, from several threads at once where the caller wants that."""

    @abstractmethod
    def write(self, request: Request) -> Reply:
        """The reply to one request.

        Raises:
            IsthmusError: No request can be answered now.
        """

    def stop(self) -> None:
        """Called when the run ends: whoever waits between requests gives up. Most writers never wait."""
        return


def as_reply(exchanges: Sequence[Exchange]) -> Reply:
    """Exchanges in the form that every writer is asked for."""
    turns = [{"question": one.question, "answer": one.answer} for one in exchanges]
    return Reply(text=json.dumps({"turns": turns}))
