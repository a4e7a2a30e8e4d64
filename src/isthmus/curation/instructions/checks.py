"""What every reply has to pass before it becomes a row; the first check that fails names the reason."""

import re
from dataclasses import dataclass
from typing import Any, Literal, final

from isthmus.core.json_text import loads
from isthmus.curation.instructions.facts import Facts
from isthmus.curation.instructions.vocabulary import Vocabulary, words_of
from isthmus.curation.instructions.writer import Exchange, Reply
from isthmus.data.sources.llava import MARKER

Reason = Literal[
    "unusable facts",
    "refused by the writer",
    "no JSON",
    "another form",
    "empty answer",
    "does not ask first",
    "speaks of captions or boxes",
    "names what is not there",
    "duplicate",
]
"""Why something was dropped, in the order of the checks."""

_FENCED = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
_ASKING = re.compile(
    r"what|which|who|whose|whom|where|when|why|how|is|are|was|were|do|does|did|can|could|will|would|should|has|have|may|"
    r"describe|explain|tell|give|list|name|identify|discuss|analy[sz]e|summari[sz]e|please|provide"
)
_SOURCES = re.compile(
    r"\b(?:captions?|bounding[ -]box(?:es)?|bbox(?:es)?|coordinates?|"
    r"(?:provided|given|listed) (?:descriptions?|sentences?|texts?|information|objects?|lists?|labels?|boxes)|"
    r"(?:descriptions?|sentences?|information|lists?|labels?|boxes) (?:provided|given)|"
    r"(?:according to|based on|in|from) the (?:descriptions?|sentences?|texts?|lists?|boxes|annotations?))\b"
    r"|\[\s*[01]?\.\d+\s*,",
    re.IGNORECASE,
)
_DENYING = {"no", "none", "zero", "not", "nobody", "nothing"}


@final
@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A reply that becomes no row.

    Attributes:
        reason: Which check failed.
        found: What it found.
    """

    reason: Reason
    found: str


def checked(reply: Reply, facts: Facts, vocabulary: Vocabulary) -> tuple[Exchange, ...] | Rejected:
    """The exchanges of a reply, or why there are none."""
    if reply.refused:
        return Rejected(reason="refused by the writer", found=reply.refused)
    exchanges = parsed(reply.text)
    if isinstance(exchanges, Rejected):
        return exchanges
    for exchange in exchanges:
        if not words_of(exchange.answer):
            return Rejected(reason="empty answer", found=f"nothing follows {exchange.question!r}")
    if not _asks(exchanges[0].question):
        return Rejected(reason="does not ask first", found=exchanges[0].question[:80])
    for exchange in exchanges:
        spoken = _SOURCES.search(f"{exchange.question}\n{exchange.answer}")
        if spoken is not None:
            return Rejected(reason="speaks of captions or boxes", found=spoken[0])
    labels = [*(one.label for one in facts.boxes), *vocabulary.only_said(facts.captions)]
    for exchange in exchanges:
        strangers = vocabulary.strangers(_claimed(exchange), labels)
        if strangers:
            return Rejected(reason="names what is not there", found=", ".join(dict.fromkeys(strangers)))
    return exchanges


def parsed(text: str) -> tuple[Exchange, ...] | Rejected:
    """The exchanges that a reply holds; a fence of code around the JSON is taken off."""
    fenced = _FENCED.match(text.strip())
    try:
        found: Any = loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return Rejected(reason="no JSON", found=text.strip()[:80] or "nothing")
    turns = found.get("turns") if isinstance(found, dict) else None
    if not isinstance(turns, list) or not turns:
        return Rejected(reason="another form", found="no list 'turns' with something in it")
    exchanges = []
    for turn in turns:
        match turn:
            case {"question": str(question), "answer": str(answer)}:
                exchanges.append(Exchange(question=question.strip(), answer=answer.strip()))
            case _:
                return Rejected(
                    reason="another form", found="a turn without the texts 'question' and 'answer'"
                )
    # The marker stands for a picture; in a text it would call for a second one.
    if any(MARKER in f"{one.question}{one.answer}" for one in exchanges):
        return Rejected(reason="another form", found=f"the marker {MARKER}")
    return tuple(exchanges)


def _asks(question: str) -> bool:
    first = words_of(question)[:1]
    return bool(first) and (question.rstrip().endswith("?") or _ASKING.fullmatch(first[0]) is not None)


def _claimed(exchange: Exchange) -> str:
    """What an exchange says is there; a question that is answered by no may name anything."""
    denied = set(words_of(exchange.answer)[:3]) & _DENYING
    return exchange.answer if denied else f"{exchange.question}\n{exchange.answer}"
