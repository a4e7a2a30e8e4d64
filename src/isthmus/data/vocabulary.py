"""Small tokenizers trained on a data set's own text, saved and loaded as Hugging Face folders."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.parts.checkpoints import first_line

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
"""Padding, unknown, first and last token; their ids are 0 to 3."""

Tokenizer = PreTrainedTokenizerBase
"""Any Hugging Face tokenizer."""

_SMALLEST = {"word": len(SPECIALS) + 1, "bpe": len(SPECIALS) + 256}


def train_tokenizer(
    texts: Iterable[str], *, algorithm: Literal["word", "bpe"], vocabulary: int, lower: bool
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts in the same order give the same one.

    `word` takes words as they stand between spaces, with the signs `.,!?;:` at a word's end apart, the most frequent
    first; others become `<unk>`. `bpe` merges bytes (Sennrich et al., 2016; on bytes as in GPT-2), so that nothing is
    unknown; a text and the same text after a space have the same tokens.

    Args:
        texts: What to learn from.
        algorithm: `word` or `bpe`.
        vocabulary: Most entries, the four special tokens (and for `bpe` the 256 bytes) included.
        lower: Whether upper and lower case are the same.

    Raises:
        RecipeError: The vocabulary is too small for the algorithm.
    """
    if vocabulary < _SMALLEST[algorithm]:
        raise RecipeError(
            f"a '{algorithm}' vocabulary of {vocabulary} is too small; expected at least {_SMALLEST[algorithm]}"
        )
    core = _words() if algorithm == "word" else _bytes()
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lower else [])]
    core.normalizer = normalizers.Sequence(steps)
    specials = list(SPECIALS)
    if algorithm == "word":
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocabulary, special_tokens=specials, show_progress=False
        )
    else:
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIALS[0],
        unk_token=SPECIALS[1],
        bos_token=SPECIALS[2],
        eos_token=SPECIALS[3],
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name: str, *, revision: str | None = None, local_only: bool = True) -> Tokenizer:
    """The tokenizer of a folder or hub name; never code from a checkpoint.

    Raises:
        OSError: The folder or name is not there.
        CheckpointError: It is there, but its files hold no tokenizer that can be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, local_files_only=local_only)
    except Exception as error:  # tokenizers raises plain Exceptions, transformers whatever it stumbles over
        if isinstance(error, OSError) and not Path(name).exists():
            raise
        raise CheckpointError(
            f"the tokenizer of '{name}' cannot be read ({first_line(error)}); restore its files from a copy, or give "
            "another checkpoint"
        ) from error
    assert tokenizer is not None  # only the annotation of transformers allows it
    return tokenizer


def _words() -> Core:
    core = Core(models.WordLevel(unk_token=SPECIALS[1]))
    signs = pre_tokenizers.Split(Regex(r"[.,!?;:]+$"), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), signs])
    return core


def _bytes() -> Core:
    core = Core(models.BPE(unk_token=SPECIALS[1]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    return core
