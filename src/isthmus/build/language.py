"""Language models, text encoders and their tokenizers from a recipe."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import nn

from isthmus.build.vision import Origin, not_here, source_of
from isthmus.config.joining import Placeholder, Reuse
from isthmus.config.language import Language, LlamaLanguage, PretrainedLanguage, TransformerText
from isthmus.core.errors import RecipeError
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama, load_causal_network
from isthmus.parts.language.lora import LoraSettings, add_lora
from isthmus.parts.language.text_encoder import TextEncoder
from isthmus.parts.language.token_rows import TokenRows


@dataclass(frozen=True, kw_only=True)
class BuiltLanguage:
    """A language model with its low-rank update, if it has one, and the id of its image placeholder."""

    model: LanguageModel
    lora: nn.Module | None
    placeholder_id: int


def build_language(
    config: Language,
    origin: Origin,
    *,
    placeholder: Placeholder = "virtual",
    vocabulary: int | None,
    with_markers: bool = False,
) -> BuiltLanguage:
    """The causal language model.

    Args:
        config: What the recipe says.
        origin: Where weights may come from.
        placeholder: How the places of pictures are written.
        vocabulary: Ids of the tokenizer, where it was trained; None takes the recipe's largest number.
        with_markers: Give `<image>` and `<|endofchunk|>` trained rows, the two ids after the vocabulary.

    Raises:
        RecipeError: The name or a LoRA target does not exist.
    """
    match config:
        case LlamaLanguage():
            shape = LlamaShape(
                vocabulary=vocabulary or config.tokenizer.vocabulary,
                width=config.width,
                num_layers=config.layers,
                num_heads=config.heads,
                num_kv_heads=config.kv_heads or config.heads,
                ffn=config.ffn,
                context=config.context,
                attention_dropout=config.dropout,
            )
            network = build_llama(shape)
            lora, input_dropout = None, config.dropout
        case PretrainedLanguage():
            source = source_of(config.name, config.revision, origin, path="model.language.name")
            try:
                network = load_causal_network(source)
            except OSError as error:
                raise not_here(config.name, "model.language.name", origin) from error
            except ValueError as error:
                raise RecipeError(f"model.language.name: {error}") from error
            lora, input_dropout = config.lora, 0.0
        case _:
            assert_never(config)
    added = None
    if lora is not None:
        settings = LoraSettings(
            rank=lora.rank, alpha=lora.alpha, targets=tuple(lora.targets), dropout=lora.dropout
        )
        try:
            added = add_lora(network, settings)
        except ValueError as error:
            raise RecipeError(f"model.language.lora.targets: {error}") from error
    rows = TokenRows(network=network, num_rows=2) if with_markers else None
    model = LanguageModel(network=network, input_dropout=input_dropout, rows=rows)
    return BuiltLanguage(model=model, lora=added, placeholder_id=_placeholder(placeholder, model))


def _placeholder(placeholder: Placeholder, model: LanguageModel) -> int:
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


def build_text_encoder(config: TransformerText, *, embed_dim: int, vocabulary: int | None) -> TextEncoder:
    """The text side of a dual encoder."""
    shape = TransformerShape(
        width=config.width, num_layers=config.layers, num_heads=config.heads, dropout=config.dropout
    )
    return TextEncoder(
        vocabulary=vocabulary or config.tokenizer.vocabulary,
        context=config.context,
        shape=shape,
        embed_dim=embed_dim,
        pool=config.pool,
        word_dropout=config.word_dropout,
        rarity=config.rarity,
    )
