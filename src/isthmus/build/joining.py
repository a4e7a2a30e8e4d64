"""Connectors and image heads from a recipe."""

from typing import assert_never

from isthmus.config.joining import (
    Connector,
    ImageHead,
    LinearConnector,
    MlpConnector,
    PerceiverResampler,
    PixelShuffle,
)
from isthmus.core.errors import RecipeError
from isthmus.parts.connectors.connector import Connector as ConnectorModule
from isthmus.parts.connectors.linear import LinearConnector as LinearModule
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler as ResamplerModule
from isthmus.parts.connectors.pixel_shuffle import PixelShuffleConnector
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.parts.vision.head import HeadDropout
from isthmus.parts.vision.head import ImageHead as ImageHeadModule


def build_connector(config: Connector, *, vision: VisionEncoder, language_width: int) -> ConnectorModule:
    """The connector between this encoder and a language model of this width.

    Raises:
        RecipeError: The connector cannot take what the encoder gives.
    """
    num_patches = vision.num_tokens(vision.image_size)
    connector = _connector(config, vision.width, language_width, num_patches)
    try:
        connector.num_tokens(num_patches)
    except ValueError as error:
        raise RecipeError(f"model.connector: {error}") from error
    return connector


def _connector(
    config: Connector, vision_width: int, language_width: int, num_patches: int
) -> ConnectorModule:
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
        case PerceiverResampler():
            return ResamplerModule(
                vision_width=vision_width,
                language_width=language_width,
                num_latents=config.latents,
                num_layers=config.layers,
                num_heads=config.heads,
                head_width=config.head_dim,
                ffn_multiple=config.ffn_multiple,
            )
        case PixelShuffle():
            return PixelShuffleConnector(
                vision_width=vision_width, language_width=language_width, factor=config.factor
            )
        case _:
            assert_never(config)


def build_image_head(config: ImageHead, *, vision: VisionEncoder, embed_dim: int) -> ImageHeadModule:
    """From patches to one vector."""
    return ImageHeadModule(
        vision_width=vision.width,
        embed_dim=embed_dim,
        pooling=config.pooling,
        num_heads=config.heads,
        norm=config.norm,
        dropout=HeadDropout(
            channels=config.channel_dropout, patches=config.patch_dropout, output=config.dropout
        ),
    )
