"""Tokenizers and text codecs from a recipe; a trained tokenizer is made once and kept with the run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import assert_never

from isthmus.build.names import locate
from isthmus.build.sources import build_source
from isthmus.config.data import SceneSource, Source
from isthmus.config.dual import PretrainedText, PretrainedTokenizer, Text, TextTokenizer
from isthmus.config.language import (
    EncoderDecoderLanguage,
    Language,
    LlamaLanguage,
    PretrainedLanguage,
    TrainedTokenizer,
)
from isthmus.config.med import Med, MedText
from isthmus.config.model import (
    Classifier,
    DualEncoder,
    LanguageModel,
    MaskedImageModel,
    Model,
    VisionLanguageModel,
    VisualTokenizer,
)
from isthmus.config.qformer import QFormerPretrainer, QFormerText
from isthmus.core.errors import MachineError, RecipeError
from isthmus.data.scenes import read_words, words
from isthmus.data.templates import EOC, ChatTemplate
from isthmus.data.text import CaptionEncoder, TextCodec, pad_id_of
from isthmus.data.vocabulary import Tokenizer, load_tokenizer, train_tokenizer


def build_tokenizer(
    model: Model, data: Mapping[str, Source], *, kept: Path | None, network_allowed: bool = False
) -> Tokenizer | None:
    """The tokenizer of a model's text side; None for a model that reads no text.

    Args:
        model: What the recipe says.
        data: The recipe's sources, for a tokenizer that is trained.
        kept: Where a run keeps its tokenizer: read if there, else written. None trains anew.
        network_allowed: Hub names may be fetched.

    Raises:
        MachineError: A named tokenizer is not on this machine.
    """
    if kept is not None and (kept / "tokenizer.json").is_file():
        return load_tokenizer(str(kept))
    match model:
        case VisionLanguageModel() | LanguageModel():
            tokenizer = _of_language(model.language, data, network_allowed)
        case DualEncoder() | QFormerPretrainer() | Med():
            tokenizer = _of_text(model.text, data, network_allowed)
        case MaskedImageModel() | VisualTokenizer() | Classifier():
            return None
        case _:
            assert_never(model)
    if kept is not None:
        tokenizer.save_pretrained(kept)
    return tokenizer


def _of_language(language: Language, data: Mapping[str, Source], network_allowed: bool) -> Tokenizer:
    match language:
        case LlamaLanguage():
            return _trained(language.tokenizer, data)
        case PretrainedLanguage() | EncoderDecoderLanguage():
            return _published(language.name, language.revision, "model.language.name", network_allowed)
        case _:
            assert_never(language)


def _of_text(
    text: Text | QFormerText | MedText, data: Mapping[str, Source], network_allowed: bool
) -> Tokenizer:
    if isinstance(text, PretrainedText):
        return _published(text.name, text.revision, "model.text.name", network_allowed)
    match config := text.tokenizer:
        case TrainedTokenizer():
            return _trained(config, data)
        case PretrainedTokenizer():
            return _published(config.name, config.revision, "model.text.tokenizer.name", network_allowed)
        case _:
            assert_never(config)


def _published(name: str, revision: str | None, path: str, network_allowed: bool) -> Tokenizer:
    try:
        return load_tokenizer(locate(name, path=path), revision=revision, local_only=not network_allowed)
    except OSError as error:
        raise MachineError(
            f"{path}: the tokenizer of '{name}' is not on this machine and the network is not asked; "
            "pass --allow-network to fetch it, or give a folder"
        ) from error


def _trained(config: TrainedTokenizer, data: Mapping[str, Source]) -> Tokenizer:
    return train_tokenizer(
        _texts(data[config.data], data),
        algorithm=config.algorithm,
        vocabulary=config.vocabulary,
        lower=config.lower,
    )


def _texts(source: Source, data: Mapping[str, Source]) -> Iterator[str]:
    if isinstance(source, SceneSource):
        # The built-in world states its complete word list; counting drawn captions would only approach it.
        # A short vocabulary keeps the words about pictures, which are said twice here, before those of texts alone.
        yield " ".join([*words(), *words(), *read_words()])
        return
    for sample in build_source(source, data):
        yield from sample.captions or (turn.text for turn in sample.turns)


def template_of(model: VisionLanguageModel | LanguageModel) -> ChatTemplate:
    """The chat template that a recipe's language model names.

    Raises:
        RecipeError: There is no such template.
    """
    try:
        return ChatTemplate.from_name(model.language.template)
    except RecipeError as error:
        raise RecipeError(f"model.language.template: {error}") from error


def build_codec(
    model: VisionLanguageModel | LanguageModel,
    tokenizer: Tokenizer,
    *,
    placeholder_id: int,
    template: ChatTemplate | None = None,
) -> TextCodec:
    """How conversations become ids for this language model; without a template by the one that the recipe names.

    Raises:
        RecipeError: There is no such template, the tokenizer lacks its special tokens, or the placeholder is one of
            them.
    """
    language = model.language
    context = language.context
    if context is None:
        limit = tokenizer.model_max_length
        if limit > 1_000_000:
            raise RecipeError(
                "model.language.context: the tokenizer does not say how many tokens its model takes; give the number"
            )
        context = int(limit)
    has_markers = isinstance(model, VisionLanguageModel) and model.has_markers
    taken = (pad_id_of(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    if placeholder_id in taken:
        raise RecipeError(
            f"model.fusion.placeholder.reuse: id {placeholder_id} begins, ends or fills up rows; "
            "choose an id that nothing else uses, or virtual"
        )
    return TextCodec(
        tokenizer=tokenizer,
        template=template or template_of(model),
        placeholder_id=placeholder_id,
        context=context,
        added={EOC: placeholder_id + 1} if has_markers else None,
    )


def build_caption_encoder(
    model: DualEncoder | QFormerPretrainer | Med, tokenizer: Tokenizer
) -> CaptionEncoder:
    """How captions become ids for this text encoder."""
    return CaptionEncoder(tokenizer=tokenizer, context=model.text.context)


def num_words(said: TextTokenizer, tokenizer: Tokenizer | None) -> int:
    """Ids that a text side has rows for; a trained tokenizer may have found fewer than its recipe allows.

    Raises:
        RecipeError: The tokenizer has more.
    """
    if tokenizer is None:
        return said.vocabulary
    if isinstance(said, PretrainedTokenizer):
        if len(tokenizer) > said.vocabulary:
            raise RecipeError(
                f"model.text.tokenizer.vocabulary: found {said.vocabulary}, but the tokenizer has {len(tokenizer)} "
                "ids; give at least as many"
            )
        return said.vocabulary
    return len(tokenizer)
