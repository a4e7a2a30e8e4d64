"""Dual encoders from a recipe: image head, text encoder, and what compares their vectors."""

from typing import assert_never

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.dual_weights import fill_dual_encoder
from isthmus.build.vision import build_vision, vit_shape
from isthmus.config.dual import (
    DualEncoder,
    ImageHead,
    PretrainedText,
    PretrainedTokenizer,
    Text,
    TransformerText,
)
from isthmus.config.vision import Vision, VitVision
from isthmus.core.errors import RecipeError
from isthmus.data.text import pad_id_of
from isthmus.data.vocabulary import Tokenizer
from isthmus.models.dual_encoder import DualEncoder as DualEncoderModel
from isthmus.nn.members import Members
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.language.pretrained_text import PretrainedTextEncoder, load_text_network
from isthmus.parts.language.text_encoder import TextEncoder, TokenIds
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.parts.vision.head import HeadDropout, MapHead
from isthmus.parts.vision.head import ImageHead as ImageHeadModule


def build_dual_encoder(
    config: DualEncoder, origin: Origin, *, tokenizer: Tokenizer | None, frozen: frozenset[str]
) -> DualEncoderModel:
    """A dual encoder with the weights that its recipe names.

    Raises:
        RecipeError: Parts do not exist or do not fit each other.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine and the network is not allowed.
    """
    vision = build_vision(config.vision, origin, frozen="vision" in frozen)
    members = range(config.members)
    heads = [
        _image_head(config.image_head, config.vision, built=vision, embed_dim=config.embed_dim)
        for _ in members
    ]
    texts = [
        _text_encoder(config.text, origin, embed_dim=config.embed_dim, tokenizer=tokenizer) for _ in members
    ]
    model = DualEncoderModel(
        vision=vision,
        image_head=Members(heads) if len(heads) > 1 else heads[0],
        text=Members(texts) if len(texts) > 1 else texts[0],
        scale_init=config.scale_init,
        bias_init=config.bias_init,
    )
    if config.weights is not None and not origin.random:
        fill_dual_encoder(model, config.weights, origin)
    return model


def _image_head(
    config: ImageHead, vision: Vision, *, built: VisionEncoder, embed_dim: int
) -> ImageHeadModule | MapHead:
    """From patches to one vector."""
    if config.pooling == "map":
        assert isinstance(vision, VitVision)
        return MapHead(shape=vit_shape(vision))
    if not config.projection and embed_dim != built.width:
        raise RecipeError(
            f"model.embed_dim: found {embed_dim}, but the vision encoder gives vectors of {built.width} and image_head "
            f"has no projection; give {built.width}"
        )
    return ImageHeadModule(
        vision_width=built.width,
        embed_dim=embed_dim if config.projection else None,
        pooling=config.pooling,
        num_heads=config.heads,
        norm=config.norm,
        dropout=HeadDropout(
            channels=config.channel_dropout, patches=config.patch_dropout, output=config.dropout
        ),
    )


def _text_encoder(
    config: Text, origin: Origin, *, embed_dim: int, tokenizer: Tokenizer | None
) -> TextEncoder | PretrainedTextEncoder:
    """The text side; without a tokenizer it has the recipe's largest vocabulary."""
    match config:
        case TransformerText():
            return _transformer(config, embed_dim=embed_dim, tokenizer=tokenizer)
        case PretrainedText():
            return _pretrained(config, origin, embed_dim=embed_dim, tokenizer=tokenizer)
        case _:
            assert_never(config)


def _transformer(config: TransformerText, *, embed_dim: int, tokenizer: Tokenizer | None) -> TextEncoder:
    shape = TransformerShape(
        width=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        ffn_multiple=4.0 if config.ffn is None else config.ffn / config.width,
        dropout=config.dropout,
        norm_eps=config.norm_eps,
        activation=config.activation,
    )
    return TextEncoder(
        tokens=_token_ids(config, tokenizer),
        shape=shape,
        embed_dim=embed_dim,
        pool=config.pool,
        word_dropout=config.word_dropout,
        rarity=config.rarity,
        head_bias=config.head_bias,
    )


def _pretrained(
    config: PretrainedText, origin: Origin, *, embed_dim: int, tokenizer: Tokenizer | None
) -> PretrainedTextEncoder:
    path = "model.text.name"
    source = source_of(config.name, config.revision, origin, path=path)
    with reading(config.name, path, origin, block="model.text"):
        encoder = PretrainedTextEncoder(
            network=load_text_network(source),
            embed_dim=embed_dim,
            context=config.context,
            pool=config.pool,
            head_bias=config.head_bias,
        )
    if tokenizer is not None and len(tokenizer) > encoder.vocabulary:
        raise RecipeError(
            f"{path}: the tokenizer of '{config.name}' has {len(tokenizer)} ids, but its network has vectors "
            f"for {encoder.vocabulary}; give a folder whose tokenizer is that of its weights"
        )
    return encoder


def _token_ids(config: TransformerText, tokenizer: Tokenizer | None) -> TokenIds:
    vocabulary = config.tokenizer.vocabulary
    if tokenizer is None:
        return TokenIds(vocabulary=vocabulary, context=config.context)
    if isinstance(config.tokenizer, PretrainedTokenizer):
        if len(tokenizer) > vocabulary:
            raise RecipeError(
                f"model.text.tokenizer.vocabulary: found {vocabulary}, but '{config.tokenizer.name}' has "
                f"{len(tokenizer)} ids; give at least that many"
            )
    else:
        vocabulary = len(tokenizer)
    end_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return TokenIds(vocabulary=vocabulary, context=config.context, end_id=end_id, pad_id=pad_id_of(tokenizer))
