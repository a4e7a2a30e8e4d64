"""Connectors from a recipe."""

from typing import assert_never

from isthmus.build.qformer import build_qformer
from isthmus.build.resampling import build_resampling
from isthmus.config.joining import (
    Connector,
    CrossAttention,
    LinearConnector,
    MlpConnector,
    PixelShuffle,
)
from isthmus.config.model import VisionLanguageModel
from isthmus.config.qformer import QFormer
from isthmus.config.resampling import Resampling
from isthmus.core.errors import RecipeError
from isthmus.models.vision_language_model import AttentionPath
from isthmus.parts.connectors.connector import Connector as ConnectorModule
from isthmus.parts.connectors.linear import LinearConnector as LinearModule
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape
from isthmus.parts.connectors.pixel_shuffle import PixelShuffleConnector
from isthmus.parts.fusion.gated_block import GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.language.encoder_decoder import EncoderDecoder
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.vision.encoder import VisionEncoder


def build_connector(
    config: Connector, *, vision: VisionEncoder, language_width: int, path: str = "model.connector"
) -> ConnectorModule:
    """The connector between this encoder and a language model of this width; `path` is where the recipe has it.

    Raises:
        RecipeError: The connector cannot take what the encoder gives.
    """
    num_patches = vision.num_tokens(vision.image_size)
    try:
        connector = _connector(config, vision.width, language_width, num_patches)
        connector.num_tokens(num_patches)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    return connector


def build_ways(
    config: VisionLanguageModel, *, vision: VisionEncoder, language: LanguageModel | EncoderDecoder
) -> tuple[ConnectorModule | None, AttentionPath | None]:
    """What is spliced into the text, and what the text reads through gated cross-attention.

    Raises:
        RecipeError: A connector cannot take what the encoder gives, or the language model cannot take the blocks.
    """
    spliced, attention = None, None
    if config.splice is not None:
        name, way = config.splice
        path = "model.connector" if config.connector is not None else f"model.paths.{name}.connector"
        spliced = build_connector(way.connector, vision=vision, language_width=language.width, path=path)
    if config.attention is not None and isinstance(language, LanguageModel):
        name, way, fusion = config.attention
        path = "model" if config.connector is not None else f"model.paths.{name}"
        width = fusion.width or vision.width
        attention = AttentionPath(
            connector=build_connector(
                way.connector, vision=vision, language_width=width, path=f"{path}.connector"
            ),
            fusion=_gated(fusion, language=language, context_width=width, path=f"{path}.fusion"),
            name=name,
            spliced_name="connector" if config.splice is None else config.splice[0],
            num_markers=int(config.has_markers),
        )
    return spliced, attention


def _gated(
    config: CrossAttention, *, language: LanguageModel, context_width: int, path: str
) -> GatedCrossAttention:
    try:
        return GatedCrossAttention(
            network=language.network,
            every=config.every,
            placement=config.placement,
            width=language.width,
            context_width=context_width,
            shape=GatedShape(
                num_heads=config.heads,
                head_width=config.head_dim,
                ffn_multiple=config.ffn_multiple,
                activation=config.activation,
            ),
        )
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error


def _connector(
    config: Connector, vision_width: int, language_width: int, num_patches: int
) -> ConnectorModule:
    if isinstance(config, Resampling):
        return build_resampling(config, vision_width=vision_width, language_width=language_width)
    match config:
        case LinearConnector():
            return LinearModule(vision_width=vision_width, language_width=language_width)
        case MlpConnector():
            num_tokens = num_patches if config.pool is None else config.pool**2
            return MLPConnector(
                vision_width=vision_width,
                language_width=language_width,
                shape=MLPShape(
                    depth=config.depth, hidden=config.hidden, norm=config.norm, dropout=config.dropout
                ),
                pool_side=config.pool,
                num_positions=num_tokens if config.positions else None,
            )
        case QFormer():
            return build_qformer(config, vision_width=vision_width, language_width=language_width)
        case PixelShuffle():
            return PixelShuffleConnector(
                vision_width=vision_width,
                language_width=language_width,
                factor=config.factor,
                mlp=_behind_norm(config) if config.has_norm else None,
                num_positions=num_patches // config.factor**2 if config.positions else None,
            )
        case _:
            assert_never(config)


def _behind_norm(config: PixelShuffle) -> MLPShape:
    return MLPShape(
        depth=1 if config.hidden is None else 2, hidden=config.hidden, norm=True, dropout=config.dropout
    )
