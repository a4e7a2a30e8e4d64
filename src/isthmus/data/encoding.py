"""Tokenising from several threads: template pieces with special tokens, contents without.

A Hugging Face tokenizer keeps `split_special_tokens` as a state of its own: a thread that tokenises a template piece
while another tokenises a content can get the other's setting, and special tokens are spelled out or typed ones come
alive. Here each of the two settings has a copy of its own that never changes.
"""

import threading
from typing import final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SPACE_SIGNS = ("▁", "Ġ")


@final
class Encoder:
    """Ids of pieces of text, the same from any number of threads.

    Args:
        tokenizer: Any Hugging Face tokenizer; it is not changed.

    Attributes:
        adds_space: Whether the tokenizer puts a space of its own in front of every text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._cores: dict[bool, Tokenizer] = {}
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            written = tokenizer.backend_tokenizer.to_str()
            self._cores = {split: _core(written, split_special_tokens=split) for split in (False, True)}
        self._bare = {tokenizer.convert_tokens_to_ids(sign) for sign in _SPACE_SIGNS} - {
            tokenizer.unk_token_id,
            None,
        }
        # A word tokenizer's vocabulary holds its special tokens as words, which somebody can type.
        self._unknown = tokenizer.unk_token_id
        self._special = frozenset(tokenizer.all_special_ids) - {self._unknown}
        self._lone_space = [index for index in self._bare if isinstance(index, int)][:1]
        first = tokenizer.convert_ids_to_tokens(self._ids("a", split_special_tokens=False)[:1])
        self.adds_space = bool(first) and first[0].startswith(_SPACE_SIGNS)

    def piece(self, text: str) -> list[int]:
        """The ids of a template's piece, whose special tokens are special tokens."""
        if not self.adds_space or not text.startswith(" "):
            return self._trimmed(text, split_special_tokens=False)
        ids = self._trimmed(text[1:], split_special_tokens=False)
        # No space is put in front of a special token, so the one that the piece begins with stays (LLaMA-2's ` </s>`).
        return [*self._lone_space, *ids] if ids[:1] and ids[0] in self._special else ids

    def content(self, text: str) -> list[int]:
        """The ids of what somebody said: special tokens in it are spelled out as text, or unknown words."""
        ids = self._trimmed(text, split_special_tokens=True)
        return ids if self._unknown is None else [self._unknown if i in self._special else i for i in ids]

    def _trimmed(self, text: str, *, split_special_tokens: bool) -> list[int]:
        ids = self._ids(text, split_special_tokens=split_special_tokens)
        lone = self.adds_space and len(ids) > 1 and ids[0] in self._bare and text.startswith(("\n", "\t"))
        return ids[1:] if lone else ids

    def _ids(self, text: str, *, split_special_tokens: bool) -> list[int]:
        if self._cores:
            return self._cores[split_special_tokens].encode(text, add_special_tokens=False).ids
        with self._lock:
            encoded = self._tokenizer(
                text, add_special_tokens=False, split_special_tokens=split_special_tokens
            )
            return list(encoded["input_ids"])


def _core(written: str, *, split_special_tokens: bool) -> Tokenizer:
    core = Tokenizer.from_str(written)
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = split_special_tokens
    return core
