"""Language models and their placeholders from a recipe."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

import torch
from torch import nn

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.config.joining import Placeholder, Reuse
from isthmus.config.language import (
    EncoderDecoderLanguage,
    Language,
    LlamaLanguage,
    Lora,
    PretrainedLanguage,
)
from isthmus.core.errors import CheckpointError, MachineError, RecipeError
from isthmus.data.vocabulary import Tokenizer
from isthmus.parts.language.encoder_decoder import EncoderDecoder, load_encoder_decoder
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama, load_causal_network
from isthmus.parts.language.lora import LoraSettings, LoraUpdate, add_lora, read_lora
from isthmus.parts.language.token_rows import TokenRows
from isthmus.training.state import mismatches

_NAME = "model.language.name"


@dataclass(frozen=True, kw_only=True)
class BuiltLanguage:
    """A language model with its low-rank update, if it has one, and the id of its image placeholder."""

    model: LanguageModel | EncoderDecoder
    lora: nn.Module | None
    placeholder_id: int


def build_language(
    config: Language,
    origin: Origin,
    *,
    placeholder: Placeholder = "virtual",
    tokenizer: Tokenizer | None,
    with_markers: bool = False,
) -> BuiltLanguage:
    """The language model.

    Args:
        config: What the recipe says.
        origin: Where weights may come from.
        placeholder: How the places of pictures are written.
        tokenizer: The tokenizer that a language model of our own takes its vocabulary and special ids from; None takes
            the recipe's largest number and no special ids.
        with_markers: Give `<image>` and `<|endofchunk|>` trained rows, the two ids after the vocabulary.

    Raises:
        RecipeError: The name or a LoRA target does not exist.
        CheckpointError: Saved LoRA weights do not fit.
        MachineError: The checkpoint, or the package that 4-bit weights need, is not on this machine.
    """
    match config:
        case EncoderDecoderLanguage():
            whole = _encoder_decoder(config, origin)
            return BuiltLanguage(model=whole, lora=None, placeholder_id=placeholder_of(placeholder, whole))
        case LlamaLanguage():
            network = build_llama(_llama_shape(config, tokenizer))
            model, lora = LanguageModel(network=network, input_dropout=config.dropout), None
        case PretrainedLanguage():
            model, lora = _pretrained(config, origin), config.lora
        case _:
            assert_never(config)
    added = None if lora is None else _add_lora(model, lora, origin)
    if with_markers:
        model.rows = TokenRows(network=model.network, num_rows=2)
    return BuiltLanguage(model=model, lora=added, placeholder_id=placeholder_of(placeholder, model))


def _llama_shape(config: LlamaLanguage, tokenizer: Tokenizer | None) -> LlamaShape:
    shape = LlamaShape(
        vocabulary=config.tokenizer.vocabulary,
        width=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        num_kv_heads=config.kv_heads or config.heads,
        ffn=config.ffn,
        context=config.context,
        attention_dropout=config.dropout,
    )
    if tokenizer is None:
        return shape
    return replace(
        shape,
        vocabulary=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        start_id=tokenizer.bos_token_id,
        end_id=tokenizer.eos_token_id,
    )


def _pretrained(config: PretrainedLanguage, origin: Origin) -> LanguageModel:
    source = source_of(config.name, config.revision, origin, path=_NAME)
    four_bit = config.quantize is not None and not origin.random
    if four_bit and find_spec("bitsandbytes") is None:
        raise MachineError(
            "model.language.quantize: 4-bit weights need the package bitsandbytes, which is not installed; "
            "run pip install 'isthmus[qlora]', or use quantize: null"
        )
    with reading(config.name, _NAME, origin):
        model = LanguageModel(network=load_causal_network(replace(source, four_bit=four_bit)))
    # Rotary positions go on beyond what was trained, badly but without an error; a table of positions ends.
    is_rotary = bool(model.network.config.to_dict().get("rope_parameters"))
    most = None if is_rotary else model.num_positions
    if most is not None and config.context is not None and config.context > most:
        raise RecipeError(
            f"model.language.context: found {config.context:,}, but '{config.name}' reads {most:,} tokens at most; "
            "expected that or less"
        )
    return model


def _encoder_decoder(config: EncoderDecoderLanguage, origin: Origin) -> EncoderDecoder:
    source = source_of(config.name, config.revision, origin, path=_NAME)
    with reading(config.name, _NAME, origin):
        return EncoderDecoder(network=load_encoder_decoder(source))


def _add_lora(model: LanguageModel, config: Lora, origin: Origin) -> LoraUpdate:
    settings = LoraSettings(
        rank=config.rank, alpha=config.alpha, targets=tuple(config.targets), dropout=config.dropout
    )
    try:
        update = add_lora(model.network, settings)
    except ValueError as error:
        raise RecipeError(f"model.language.lora.targets: {error}") from error
    if config.weights is not None and not origin.random:
        _fill_lora(update, Path(locate(config.weights, path="model.language.lora.weights")))
    return update


@torch.no_grad()
def _fill_lora(update: LoraUpdate, folder: Path) -> None:
    """Put saved updates into fresh ones of the same rank, scale and targets."""
    try:
        settings, tensors = read_lora(folder)
    except ValueError as error:
        raise CheckpointError(f"model.language.lora.weights: {error}") from error
    ours, theirs = update.settings, settings
    pairs = (("rank", ours.rank, theirs.rank), ("alpha", ours.alpha, theirs.alpha))
    wrong = [f"{name} is {found} there and {said} here" for name, said, found in pairs if said != found]
    wrong += mismatches(tensors, update.tensors())
    if wrong:
        raise CheckpointError(
            f"model.language.lora.weights: {folder.name} does not fit model.language.lora: {'; '.join(wrong)}"
        )
    for name, tensor in update.tensors().items():
        tensor.copy_(tensors[name])


def placeholder_of(placeholder: Placeholder, model: LanguageModel | EncoderDecoder) -> int:
    """The id that pictures stand as; `add` gives the embedding one more row for it.

    Raises:
        RecipeError: A reused id is outside the vocabulary.
    """
    if placeholder == "virtual":
        return model.vocabulary
    if isinstance(placeholder, Reuse):
        if placeholder.reuse >= model.vocabulary:
            raise RecipeError(
                f"model.fusion.placeholder.reuse: id {placeholder.reuse} is outside the vocabulary of "
                f"{model.vocabulary} tokens; choose an id below it"
            )
        return placeholder.reuse
    new_id = model.vocabulary
    with torch.random.fork_rng(devices=[]):
        model.network.resize_token_embeddings(new_id + 1, mean_resizing=False)
    return new_id
