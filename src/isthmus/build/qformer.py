"""The Q-Former from a recipe: as a connector, and with words in the model that its first stage trains."""

from pathlib import Path

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.build.text import num_words
from isthmus.build.vision import build_vision
from isthmus.config.qformer import QFormer, QFormerPretrainer
from isthmus.data.vocabulary import Tokenizer
from isthmus.interop.blip2 import load_blip2, load_lavis, start_from_bert
from isthmus.models.pair_heads import PairHeads
from isthmus.models.qformer_pretrainer import QFormerPretrainer as PretrainerModule
from isthmus.models.vision_language_model import VisionLanguageModel as VisionLanguageModelModule
from isthmus.parts.connectors.qformer import QFormer as QFormerModule
from isthmus.parts.connectors.qformer import QFormerText
from isthmus.parts.connectors.qformer_layers import QFormerShape


def shape_of(config: QFormer) -> QFormerShape:
    """The sizes that a recipe gives."""
    return QFormerShape(
        num_queries=config.queries,
        width=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        ffn=config.ffn,
        cross_every=config.cross_every,
        dropout=config.dropout,
        patch_norm_eps=config.norm_eps,
    )


def build_qformer(config: QFormer, *, vision_width: int, language_width: int) -> QFormerModule:
    """The connector of a vision-language model: without words, with a projection."""
    return QFormerModule(vision_width=vision_width, language_width=language_width, shape=shape_of(config))


def build_qformer_pretrainer(
    config: QFormerPretrainer, origin: Origin, *, tokenizer: Tokenizer | None, frozen: bool
) -> PretrainerModule:
    """The model of the first stage; `frozen` says that no stage trains its vision encoder.

    Raises:
        RecipeError: A name does not exist.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine.
    """
    vision = build_vision(config.vision, origin, frozen=frozen)
    shape = shape_of(config.connector)
    known = num_words(config.text.tokenizer, tokenizer)
    text = QFormerText(vocabulary=known + 1, context=config.text.positions, shape=shape)
    connector = QFormerModule(vision_width=vision.width, language_width=None, shape=shape, text=text)
    heads = PairHeads(
        image_width=shape.width,
        text_width=shape.width,
        embed_dim=config.embed_dim,
        temperature=config.temperature,
    )
    model = PretrainerModule(vision=vision, connector=connector, heads=heads, start_id=known)
    fill_from_bert(config.connector, connector, origin)
    fill_blip2(config.weights, model, origin)
    return model


def fill_from_bert(config: QFormer, connector: QFormerModule, origin: Origin) -> None:
    """Let layers and words start from the BERT that a recipe names, if it names one.

    Raises:
        MachineError: It is not on this machine.
        CheckpointError: It does not fit.
    """
    if config.bert is None or origin.random:
        return
    path = "model.connector.bert"
    with reading(config.bert, path, origin):
        start_from_bert(connector, source_of(config.bert, None, origin, path=path))


def fill_blip2(
    weights: str | None, model: PretrainerModule | VisionLanguageModelModule, origin: Origin
) -> None:
    """Put the checkpoint that `model.weights` names into a model; nothing where there is none or weights are random.

    Raises:
        RecipeError: The path does not exist.
        MachineError: The checkpoint is not on this machine.
        CheckpointError: It does not fit the model; all differences are listed.
    """
    if weights is None or origin.random:
        return
    if weights.endswith(".safetensors"):
        load_lavis(model, Path(locate(weights, path="model.weights")))
        return
    with reading(weights, "model.weights", origin):
        load_blip2(model, source_of(weights, None, origin, path="model.weights"))
