"""Rows of an encoder-decoder language model: what its encoder reads and what its decoder writes (T5, BLIP-2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError
from isthmus.core.randomness import seed_of
from isthmus.data.samples import Turn
from isthmus.data.text import EncodedText, TextCodec


@dataclass(frozen=True, kw_only=True)
class TwoSides:
    """A row's text on both sides.

    Attributes:
        asked: What the encoder reads, pictures included.
        written: The decoder's start token and what it writes; empty where the row is a prompt.
    """

    asked: EncodedText
    written: list[int]

    @property
    def targets(self) -> list[int]:
        """What the decoder learns: all but the start token."""
        return [IGNORED, *self.written[1:]]


@final
class SideSplit:
    """Puts a conversation on the two sides.

    The decoder writes one answer; what stands before it goes to the encoder, what comes after it is left out. A talk
    of several answers gives one of them, drawn, or an earlier one where what stands before it is too long. With
    `prefix` a caption is itself cut at a drawn place, and the words before it go to the encoder (prefix language
    modelling; Raffel et al., 2020, section 3.2.1; Li et al., 2023, section 3.3). Every draw is a pure function of the
    row's choice, which follows from seed, epoch and row.

    Args:
        start_id: What the decoder's side begins with.
        prefix: Whether captions are cut.
    """

    def __init__(self, *, start_id: int, prefix: bool) -> None:
        self.start_id = start_id
        self.prefix = prefix

    def training(
        self,
        codec: TextCodec,
        turns: Sequence[Turn],
        *,
        tokens_per_image: Sequence[int],
        origin: str,
        choice: int,
        is_caption: bool,
    ) -> TwoSides:
        """Both sides of a row to learn from.

        Raises:
            DataError: There is no answer, or the encoder's side does not fit into the context.
        """
        answers = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
        if not answers:
            raise DataError(f"{origin} has no answer to write; expected an assistant turn")
        drawn = seed_of(choice, origin, "answer") % len(answers)
        chosen, asked = self._room_for(codec, turns, answers[: drawn + 1], tokens_per_image, origin)
        words = codec.content_ids(turns[chosen].text)
        if not words:
            raise DataError(f"{origin} has an answer without words; expected at least one")
        given = seed_of(choice, origin, "prefix") % len(words) if self.prefix and is_caption else 0
        given = min(given, codec.context - len(asked.ids))
        ids = [*asked.ids[:-1], *words[:given], asked.ids[-1]]
        written = [self.start_id, *words[given:], *codec.end_ids]
        return TwoSides(
            asked=replace(asked, ids=ids, truncated=len(written) > codec.context),
            written=written[: codec.context],
        )

    def prompt(
        self, codec: TextCodec, turns: Sequence[Turn], *, tokens_per_image: Sequence[int], origin: str
    ) -> TwoSides:
        """The encoder's side of a row to be answered; it ends with the tokenizer's end token, as T5's texts do.

        Raises:
            DataError: It does not fit into the context.
        """
        asked = codec.encode(turns, tokens_per_image=tokens_per_image, origin=origin, purpose="prompt")
        end_id = codec.tokenizer.eos_token_id
        assert isinstance(end_id, int)
        ids = [*asked.ids[: codec.context - 1], end_id]
        return TwoSides(asked=replace(asked, ids=ids, targets=[IGNORED] * len(ids)), written=[])

    def _room_for(
        self,
        codec: TextCodec,
        turns: Sequence[Turn],
        answers: Sequence[int],
        tokens_per_image: Sequence[int],
        origin: str,
    ) -> tuple[int, EncodedText]:
        """The last of some answers before which everything fits into the context, and that."""
        chosen = answers[-1]
        try:
            both = self.prompt(codec, turns[:chosen], tokens_per_image=tokens_per_image, origin=origin)
        except DataError:
            if len(answers) == 1:
                raise
            return self._room_for(codec, turns, answers[:-1], tokens_per_image, origin)
        return chosen, both.asked
