"""A causal language model on this machine as a writer."""

import threading
from typing import final

import torch

from isthmus.core.errors import DataError
from isthmus.core.randomness import seed_of
from isthmus.curation.instructions.writer import Message, Reply, Request, Writer
from isthmus.data.collate import collate
from isthmus.data.processor import LanguageProcessor
from isthmus.data.samples import Role, Sample, Turn
from isthmus.generation.decode import Decoding, generate
from isthmus.models.language_model import LanguageModelOnly


@final
class LocalWriter(Writer):
    """Continues the chat by the model's own template.

    Args:
        model: The model, in eval mode.
        processor: Makes rows of text for it.
        decoding: How tokens are chosen.
        seed: Drives drawing; each request draws from a seed of its own, so that a resumed run writes the same.
    """

    def __init__(
        self, *, model: LanguageModelOnly, processor: LanguageProcessor, decoding: Decoding, seed: int
    ) -> None:
        self._model = model
        self._processor = processor
        self._decoding = decoding
        self._seed = seed
        self._lock = threading.Lock()

    def write(self, request: Request) -> Reply:
        """The model's continuation; a request that does not fit into the context is refused."""
        sample = Sample(
            id=request.key, origin=request.facts.origin, turns=tuple(map(_turn, request.messages)) + _ANSWER
        )
        codec = self._processor.codec
        try:
            row = self._processor.row(sample, rows="conversations", choice=0, purpose="prompt")
        except DataError as error:
            return Reply(text="", refused=str(error))
        device = next(self._model.parameters()).device
        batch = collate([row], pad_id=self._processor.pad_id, side="left").to(device)
        with self._lock, torch.inference_mode():
            ids = generate(
                self._model,
                batch,
                self._decoding,
                end_ids=codec.end_ids[-1:],
                pad_id=codec.pad_id,
                seed=seed_of(self._seed, "write", request.key),
            )[0]
        return Reply(text=codec.decode(ids), tokens_in=len(row.token_ids or ()), tokens_out=len(ids))


_ANSWER = (Turn("assistant", ("",)),)


def _turn(message: Message) -> Turn:
    role: Role = message.role
    return Turn(role, (message.content,))
