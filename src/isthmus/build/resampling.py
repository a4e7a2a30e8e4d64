"""Connectors with a fixed number of visual tokens from a recipe."""

from typing import assert_never

from isthmus.config.resampling import (
    FrameTransformer,
    LatentTransformer,
    MappingMlp,
    MappingTransformer,
    PerceiverResampler,
    PooledMlp,
    Resampling,
)
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.latent_transformer import LatentShape
from isthmus.parts.connectors.latent_transformer import LatentTransformer as LatentModule
from isthmus.parts.connectors.mapping_network import FrameTransformer as FrameModule
from isthmus.parts.connectors.mapping_network import MappingMLP, MappingShape
from isthmus.parts.connectors.mapping_network import MappingTransformer as MappingModule
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler as ResamplerModule
from isthmus.parts.connectors.perceiver_resampler import ResamplerShape
from isthmus.parts.connectors.pooled_mlp import PooledMLP


def build_resampling(config: Resampling, *, vision_width: int, language_width: int) -> Connector:
    """The connector that the recipe names.

    Raises:
        ValueError: Its sizes do not fit those of encoder and language model.
    """
    match config:
        case PerceiverResampler():
            shape = ResamplerShape(
                num_latents=config.latents,
                num_layers=config.layers,
                num_heads=config.heads,
                head_width=config.head_dim,
                ffn_multiple=config.ffn_multiple,
                activation=config.activation,
                latent_keys=config.latent_keys,
                final_norm=config.final_norm,
                num_frames=config.frames,
            )
            return ResamplerModule(vision_width=vision_width, language_width=language_width, shape=shape)
        case LatentTransformer():
            latent = LatentShape(
                num_latents=config.latents,
                num_layers=config.layers,
                num_heads=config.heads,
                ffn_multiple=config.ffn_multiple,
                context_norm=config.context_norm,
            )
            return LatentModule(vision_width=vision_width, language_width=language_width, shape=latent)
        case PooledMlp():
            return PooledMLP(
                vision_width=vision_width,
                language_width=language_width,
                num_queries=config.queries,
                num_heads=config.heads,
            )
        case MappingMlp():
            return MappingMLP(
                vision_width=vision_width,
                language_width=language_width,
                num_prefix=config.prefix,
                hidden=config.hidden,
            )
        case MappingTransformer():
            return _mapping_transformer(config, vision_width, language_width)
        case FrameTransformer():
            return FrameModule(
                vision_width=vision_width,
                language_width=language_width,
                shape=TransformerShape(
                    width=language_width,
                    num_layers=config.layers,
                    num_heads=config.heads,
                    ffn_multiple=config.ffn / language_width,
                    activation=config.activation,
                    norm_eps=1e-5,
                ),
            )
        case _:
            assert_never(config)


def _mapping_transformer(config: MappingTransformer, vision_width: int, language_width: int) -> MappingModule:
    shape = MappingShape(
        num_prefix=config.prefix,
        num_vectors=config.vectors,
        num_layers=config.layers,
        num_heads=config.heads,
        ffn_multiple=config.ffn_multiple,
        activation=config.activation,
    )
    return MappingModule(vision_width=vision_width, language_width=language_width, shape=shape)
