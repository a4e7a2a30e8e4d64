"""Pieces of a rendered conversation: which text is whose, where pictures stand, and what carries loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from isthmus.data.samples import ImagePart, Phrase


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a rendered conversation.

    Attributes:
        kind: `template` may hold special tokens; `content` is what somebody said and never does; `image` is a picture,
            `phrase` words that become one vector.
        text: The text; empty for an image.
        image: Which of the sample's images; -1 for text.
        supervised: Whether the model learns to write it.
    """

    kind: Literal["template", "content", "image", "phrase"]
    text: str = ""
    image: int = -1
    supervised: bool = False


def rendered_text(segments: Sequence[Segment], image: str = "<image>") -> str:
    """The segments as one string for people to read; never tokenise this."""
    return "".join(image if segment.kind == "image" else segment.text for segment in segments)


def template_segment(text: str) -> Segment:
    """A piece of the template itself."""
    return Segment(kind="template", text=text)


def content_segments(parts: Sequence[str | ImagePart | Phrase], *, supervised: bool) -> list[Segment]:
    """What somebody says, pictures and phrases among it; those are never supervised."""
    return [_content(part, supervised) for part in parts]


def _content(part: str | ImagePart | Phrase, supervised: bool) -> Segment:
    match part:
        case ImagePart():
            return Segment(kind="image", image=part.index)
        case Phrase():
            return Segment(kind="phrase", text=part.words)
        case _:
            return Segment(kind="content", text=part, supervised=supervised)


def merged(segments: Sequence[Segment], *, strip_end: bool) -> tuple[Segment, ...]:
    """The segments without empty ones and with neighbouring template pieces joined; `strip_end` drops last spaces."""
    joined: list[Segment] = []
    for segment in segments:
        if segment.kind != "image" and not segment.text:
            continue
        last = joined[-1] if joined else None
        if last and segment.kind == last.kind == "template" and segment.supervised == last.supervised:
            joined[-1] = replace(last, text=last.text + segment.text)
        else:
            joined.append(segment)
    if strip_end and joined and joined[-1].kind == "template":
        stripped = joined.pop()
        if stripped.text.rstrip(" "):
            joined.append(replace(stripped, text=stripped.text.rstrip(" ")))
    return tuple(joined)
