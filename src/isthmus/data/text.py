"""Segments of a conversation to token ids and targets.

The rule: every segment is tokenised alone, template pieces with the tokenizer's special tokens, contents without
(`split_special_tokens`), so that `</s>` typed by somebody stays text. Ids made piece by piece differ from those of the
whole string where pieces meet; training and use follow the same rule, so a model never sees the difference. Two
refinements keep the pieces close to running text:

* spaces that end a template piece move to the content after it (`ASSISTANT: ` + `yes` is `ASSISTANT:` + ` yes`),
  because byte-level tokenizers keep a space with the word that follows;
* a tokenizer that puts a space of its own in front of every text (SentencePiece style, `▁`) gets those spaces only
  once: one space that a piece begins with is dropped, unless a special token follows it, and so is a bare `▁` that the
  tokenizer puts before a newline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError, RecipeError
from isthmus.data.encoding import Encoder
from isthmus.data.samples import Turn
from isthmus.data.segments import Segment
from isthmus.data.templates import ChatTemplate


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """One row's text.

    Attributes:
        ids: Token ids; pictures are runs of the placeholder.
        targets: The id that should stand at each position, or `IGNORED`.
        images: Which image each run of placeholders stands for, in reading order.
        truncated: Whether text was cut off at the end.
        joined: Further ids of positions whose vector is that of several words (see `samples.Phrase`).
    """

    ids: list[int]
    targets: list[int]
    images: tuple[int, ...]
    truncated: bool
    joined: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def num_supervised(self) -> int:
        """Positions that carry loss; the first of a row never does."""
        return sum(target != IGNORED for target in self.targets[1:])


class TextCodec:
    """Token ids from conversations and back.

    Args:
        tokenizer: The language model's tokenizer.
        template: The chat template; the tokenizer's first and last token are filled in.
        placeholder_id: The id that pictures stand as: one past the embedding table's, or one that nothing else uses.
        context: Most tokens a row may have, visual ones included.
        added: Special tokens of the template that the tokenizer does not know, with ids past its vocabulary.

    Raises:
        RecipeError: The tokenizer lacks a special token of the template.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        placeholder_id: int,
        context: int,
        added: Mapping[str, int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.added = dict(added or {})
        self.template = template.bind(
            bos=tokenizer.bos_token, eos=tokenizer.eos_token, vocabulary=tokenizer.get_vocab() | self.added
        )
        self.placeholder_id = placeholder_id
        self.context = context
        self.pad_id = pad_id_of(tokenizer)
        self._encoder = Encoder(tokenizer)
        self.end_ids = tuple(self._piece(self.template.end))
        """What an answer ends with; generation stops at the last of them, or at all where the end is plain text."""

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        tokens_per_image: Sequence[int],
        origin: str,
        purpose: Literal["training", "prompt", "text"] = "training",
    ) -> EncodedText:
        """Render and tokenise one conversation.

        Args:
            turns: Who says what.
            tokens_per_image: Visual tokens of each of the sample's images.
            origin: File and row, for messages.
            purpose: `training` supervises the assistant's words, `text` every word, `prompt` nothing and opens an
                answer.

        Raises:
            DataError: The pictures do not fit into the context, a prompt does not fit, nothing is left to learn from,
                or a text holds the placeholder's own token.
            RecipeError: The template itself holds it.
        """
        segments = self.template.render(turns, add_generation_prompt=purpose == "prompt")
        ids: list[int] = []
        targets: list[int] = []
        images: list[int] = []
        joined: dict[int, Sequence[int]] = {}
        end_of_images = 0
        for number, segment in enumerate(segments):
            if segment.kind == "image":
                piece = [self.placeholder_id] * tokens_per_image[segment.image]
                images.append(segment.image)
                end_of_images = len(ids) + len(piece)
            elif segment.kind == "phrase":
                first, *joined[len(ids)] = self.content_ids(segment.text)
                piece = [first]
            else:
                piece = self._segment(segments, number)
            if segment.kind != "image" and self.placeholder_id in piece:
                raise self._clash(segment, origin)
            said = segment.kind in ("template", "content")
            supervised = segment.supervised or (purpose == "text" and said)
            ids += piece
            targets += piece if supervised else [IGNORED] * len(piece)
        self._check_room(len(ids), end_of_images, purpose=purpose, origin=origin)
        text = EncodedText(
            ids=ids[: self.context],
            targets=targets[: self.context],
            images=tuple(images),
            truncated=len(ids) > self.context,
            joined={at: more for at, more in joined.items() if at < self.context},
        )
        if purpose != "prompt" and text.num_supervised == 0:
            raise DataError(
                f"{origin} has no supervised token in the {len(text.ids)} of {len(ids)} tokens that fit; "
                "expected an assistant turn with text, or a longer context"
            )
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens, placeholders and outer spaces."""
        known = [index for index in ids if index != self.placeholder_id and 0 <= index < len(self.tokenizer)]
        return str(self.tokenizer.decode(known, skip_special_tokens=True)).strip()

    def content_ids(self, text: str) -> list[int]:
        """The ids of what somebody said: special tokens in it are spelled out as text."""
        return self._encoder.content(text)

    def _segment(self, segments: Sequence[Segment], number: int) -> list[int]:
        segment = segments[number]
        if segment.kind == "template":
            followed = number + 1 < len(segments) and segments[number + 1].kind == "content"
            return self._piece(segment.text.rstrip(" ") if followed else segment.text)
        before = segments[number - 1].text if number > 0 and segments[number - 1].kind == "template" else ""
        space = " " * (len(before) - len(before.rstrip(" "))) if not self._encoder.adds_space else ""
        return self.content_ids(space + segment.text)

    def _clash(self, segment: Segment, origin: str) -> DataError | RecipeError:
        """What is said of text whose ids hold the placeholder's: each would take a visual token."""
        token = self.tokenizer.convert_ids_to_tokens(self.placeholder_id)
        if segment.kind == "template":
            return RecipeError(
                f"template '{self.template.name}' writes {token!r}, which is the placeholder for pictures; choose "
                "another id in model.fusion.placeholder.reuse, or virtual"
            )
        return DataError(
            f"{origin} holds the text {token!r}, which is the placeholder for pictures; "
            "remove it or choose a placeholder that nobody writes"
        )

    def _piece(self, text: str) -> list[int]:
        """The ids of a template's piece; what somebody said never comes here, so it cannot name an added token."""
        for token, index in self.added.items():
            before, found, after = text.partition(token)
            if found:
                return [*self._piece(before), index, *self._piece(after)]
        return self._encoder.piece(text) if text else []

    def _check_room(self, length: int, end_of_images: int, *, purpose: str, origin: str) -> None:
        if end_of_images > self.context:
            raise DataError(
                f"{origin} needs {end_of_images} tokens up to the end of its last picture, "
                f"but the context has {self.context}; "
                "raise the context, or use fewer pictures or fewer visual tokens"
            )
        if purpose == "prompt" and length > self.context:
            raise DataError(
                f"{origin} has a prompt of {length} tokens, but the context has {self.context}; "
                "shorten the text or raise the context"
            )


class CaptionEncoder:
    """Token ids of single captions for a text encoder: first token, words, end token.

    Args:
        tokenizer: The text encoder's tokenizer; upper and lower case are treated as it says.
        context: Most tokens, first and end token included; longer captions lose words and keep the end token.
    """

    def __init__(self, *, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.pad_id = pad_id_of(tokenizer)
        self._encoder = Encoder(tokenizer)
        self.start_id = (
            tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        )
        self.end_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if self.end_id is None:
            raise RecipeError(
                "the tokenizer has no end token (eos_token or sep_token), which a text encoder needs; name one in its "
                "tokenizer_config.json, or take another tokenizer"
            )
        least = 2 if self.start_id is None else 3
        if context < least:
            raise RecipeError(
                f"a text of {context} tokens has no room for a word beside those that begin and end it; expected a "
                f"context of at least {least}"
            )

    def encode_caption(self, text: str) -> tuple[list[int], bool]:
        """The caption's ids and whether words were cut off."""
        words = self._encoder.content(text)
        start = [] if self.start_id is None else [self.start_id]
        room = self.context - len(start) - 1
        return [*start, *words[:room], self.end_id], len(words) > room

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens and outer spaces."""
        known = [index for index in ids if 0 <= index < len(self.tokenizer)]
        return str(self.tokenizer.decode(known, skip_special_tokens=True)).strip()


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills rows up: the tokenizer's own, else its end token, else 0; padding is masked, so any will do."""
    for index in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if index is not None:
            return index
    return 0
