"""From replies to a file: LLaVA's conversations of what passed the checks, and a list of what did not."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from isthmus.config.instructions import Kind
from isthmus.core.errors import DataError
from isthmus.core.files import replacing
from isthmus.curation.instructions.checks import Rejected, checked
from isthmus.curation.instructions.facts import Facts
from isthmus.curation.instructions.vocabulary import Vocabulary
from isthmus.curation.instructions.writer import Exchange, Reply, Request
from isthmus.data.sources.llava import MARKER
from isthmus.data.tally import allowed_bad, too_many


@final
@dataclass(kw_only=True)
class Rows:
    """What became of the replies.

    Attributes:
        kept: Rows of LLaVA's JSON, in the order of the requests.
        rejects: What became no row: picture, kind, reason, what was found, and the reply.
        kinds: Rows by kind.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    kinds: Counter[Kind] = field(default_factory=Counter)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were dropped for each reason, the most frequent first."""
        return dict(Counter(reject["reason"] for reject in self.rejects).most_common())

    def reject(self, facts: Facts, kind: Kind | None, rejected: Rejected, reply: str = "") -> None:
        """List something among the rejects."""
        found = {"reason": rejected.reason, "found": rejected.found}
        self.rejects.append(
            {"id": facts.id, "image": facts.image, "origin": facts.origin, "kind": kind}
            | found
            | {"reply": reply}
        )

    def write(self, conversations: Path, rejects: Path) -> None:
        """Write both files, each at once: a reader sees the old one or the new one.

        Raises:
            MachineError: The disk refuses.
        """
        _replace(conversations, json.dumps(self.kept, indent=1, ensure_ascii=False) + "\n")
        _replace(rejects, "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in self.rejects))


def usable(facts: Iterable[Facts], rows: Rows) -> list[Facts]:
    """The facts that something can be written about; the others are listed among the rejects.

    Raises:
        DataError: There are none, or more than 1% of them (and more than one), or the only one, are unusable.
    """
    given = list(facts)
    good: dict[str, Facts] = {}
    reasons = []
    for one in given:
        problem = one.problem()
        if problem is None and one.id in good:
            problem = _repeated(one, good[one.id])
        if problem is None:
            good[one.id] = one
            continue
        reasons.append(f"{one.origin} {problem}")
        rows.reject(one, None, Rejected(reason="unusable facts", found=problem))
    if not given:
        raise DataError("there is no picture to write about; expected captions and boxes of at least one")
    if len(reasons) > allowed_bad(len(given)):
        raise DataError(too_many(reasons, len(given), "captions and boxes"))
    if not good:
        raise DataError(f"the only picture cannot be written about: {reasons[0]}; mend it, or add others")
    return list(good.values())


def assemble(
    requests: Sequence[Request],
    replies: Mapping[str, Reply],
    rows: Rows,
    vocabulary: Vocabulary,
    *,
    repeats: bool,
) -> None:
    """Check the replies that are there, in the order of the requests, and make rows of them.

    Args:
        requests: What was asked.
        replies: What came back, by key.
        rows: Takes rows and rejects.
        vocabulary: All things that the pictures have labels for.
        repeats: Whether the same words may stand with several pictures: the grammar describes equal scenes equally, but
            a model that repeats itself has not read what it was told.
    """
    seen: dict[object, str] = {}
    for request in requests:
        reply = replies.get(request.key)
        if reply is None:
            continue
        exchanges = checked(reply, request.facts, vocabulary)
        if not isinstance(exchanges, Rejected):
            words = tuple((one.question.casefold(), one.answer.casefold()) for one in exchanges)
            key = (request.facts.id, words) if repeats else words
            first = seen.setdefault(key, request.key)
            if first != request.key:
                exchanges = Rejected(reason="duplicate", found=f"the same words as {first}")
        if isinstance(exchanges, Rejected):
            rows.reject(request.facts, request.kind, exchanges, reply.text)
        else:
            rows.kept.append(_row(request, exchanges))
            rows.kinds[request.kind] += 1


def _row(request: Request, exchanges: Sequence[Exchange]) -> dict[str, Any]:
    turns = []
    for number, one in enumerate(exchanges):
        asked = f"{MARKER}\n{one.question}" if number == 0 else one.question
        turns += [{"from": "human", "value": asked}, {"from": "gpt", "value": one.answer}]
    return {
        "id": f"{request.facts.id}-{request.kind}",
        "image": request.facts.image,
        "conversations": turns,
    }


def _repeated(facts: Facts, first: Facts) -> str:
    if (facts.image, facts.captions, facts.boxes) == (first.image, first.captions, first.boxes):
        return f"says the same as {first.origin}; remove one of the two"
    return f"has the id '{facts.id}' of {first.origin}; expected an id of its own"


def _replace(file: Path, text: str) -> None:
    with replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
