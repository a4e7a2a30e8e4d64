"""A language model on its own: it reads and writes text and never sees a picture."""

from contextlib import AbstractContextManager, nullcontext
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.models.model import Model
from isthmus.parts.language.language_model import LanguageModel


@final
class LanguageModelOnly(Model):
    """The model of recipes of kind `language_model`."""

    def __init__(self, *, language: LanguageModel, lora: nn.Module | None = None) -> None:
        super().__init__()
        self.language = language
        self._lora = [lora] if lora is not None else []

    def parts(self) -> dict[str, nn.Module]:
        """`language`, and `lora` where there is one."""
        named: dict[str, nn.Module] = {"language": self.language}
        return named | {"lora": self._lora[0]} if self._lora else named

    def inner_parts(self) -> dict[str, nn.Module]:
        """`token_embeddings`: the language model's table, which may be tied to its output head."""
        return {"token_embeddings": self.language.token_embeddings}

    def embed(self, batch: Batch) -> Float[Tensor, "row token dim"]:
        """Embeddings of the rows."""
        assert batch.token_ids is not None
        return self.language.embed(batch.token_ids, batch.joined_ids)

    def reading(self, batch: Batch) -> AbstractContextManager[Float[Tensor, "row token dim"]]:
        """Embeddings of the rows for whoever continues them; nothing else has to be seen."""
        return nullcontext(self.embed(batch))

    def encode(self, batch: Batch) -> Encoded:
        """Hidden states of every position."""
        assert batch.attention_mask is not None
        return Encoded(hidden=self.language(self.embed(batch), batch.attention_mask))

    def token_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next token."""
        return self.language.logits(hidden)
