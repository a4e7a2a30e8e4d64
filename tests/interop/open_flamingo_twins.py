"""Small models with gated cross-attention, and random weights for them under OpenFlamingo's names."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from isthmus.models.vision_language_model import AttentionPath, VisionLanguageModel
from isthmus.nn.feed_forward import Activation
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler, ResamplerShape
from isthmus.parts.fusion.gated_block import GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.language.token_rows import TokenRows
from isthmus.parts.vision.vit import ViT

VOCABULARY, WIDTH, SIGHT, HEADS, HEAD = 20, 24, 16, 2, 64
LATENTS, LAYERS, EVERY = 5, 4, 2
State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of what is published; of `made` by default."""

    vocabulary: int = VOCABULARY
    width: int = WIDTH
    sight: int = SIGHT
    inner: int = HEADS * HEAD
    latents: int = LATENTS
    layers: tuple[int, ...] = (1, 3)
    decoder: str = "transformer.h"
    table: str = "transformer.wte"


def made(
    *, tied: bool = True, head: int = HEAD, activation: Activation = "gelu", latent_keys: bool = True
) -> VisionLanguageModel:
    torch.manual_seed(0)
    network = GPT2LMHeadModel(
        GPT2Config(
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=2,
            vocab_size=VOCABULARY,
            n_positions=32,
            tie_word_embeddings=tied,
        )
    )
    heads = HEADS * HEAD // head
    shape = ResamplerShape(
        num_latents=LATENTS,
        num_layers=2,
        num_heads=heads,
        head_width=head,
        ffn_multiple=2,
        latent_keys=latent_keys,
    )
    gated = GatedShape(num_heads=heads, head_width=head, ffn_multiple=2, activation=activation)
    fusion = GatedCrossAttention(
        network=network, every=EVERY, placement="last", width=WIDTH, context_width=SIGHT, shape=gated
    )
    path = AttentionPath(
        connector=PerceiverResampler(vision_width=SIGHT, language_width=SIGHT, shape=shape), fusion=fusion
    )
    return VisionLanguageModel(
        vision=ViT(image_size=16, patch=8, shape=TransformerShape(width=SIGHT, num_layers=1, num_heads=2)),
        connector=None,
        language=LanguageModel(network=network, rows=TokenRows(network=network, num_rows=2)),
        placeholder_id=VOCABULARY,
        attention=path,
    ).eval()


def published(sizes: Sizes | None = None) -> State:
    """Random weights under OpenFlamingo's names."""
    generator = torch.Generator().manual_seed(1)
    sizes = sizes or Sizes()
    inner, sight, width = sizes.inner, sizes.sight, sizes.width
    state: State = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    def norm(name: str, size: int) -> None:
        add(f"{name}.weight", size)
        add(f"{name}.bias", size)

    def feed_forward(name: str, size: int) -> None:
        norm(f"{name}.0", size)
        add(f"{name}.1.weight", 2 * size, size)
        add(f"{name}.3.weight", size, 2 * size)

    add("perceiver.latents", sizes.latents, sight)
    norm("perceiver.norm", sight)
    for layer in range(2):
        place = f"perceiver.layers.{layer}"
        norm(f"{place}.0.norm_media", sight)
        norm(f"{place}.0.norm_latents", sight)
        add(f"{place}.0.to_q.weight", inner, sight)
        add(f"{place}.0.to_kv.weight", 2 * inner, sight)
        add(f"{place}.0.to_out.weight", sight, inner)
        feed_forward(f"{place}.1", sight)
    for layer in sizes.layers:
        place = f"lang_encoder.{sizes.decoder}.{layer}.gated_cross_attn_layer"
        add(f"{place}.attn_gate", 1)
        add(f"{place}.ff_gate", 1)
        norm(f"{place}.attn.norm", width)
        add(f"{place}.attn.to_q.weight", inner, width)
        add(f"{place}.attn.to_kv.weight", 2 * inner, sight)
        add(f"{place}.attn.to_out.weight", width, inner)
        feed_forward(f"{place}.ff", width)
    add(f"lang_encoder.{sizes.table}.weight", sizes.vocabulary + 3, width)
    return state


def saved(state: State, folder: Path) -> Path:
    file = folder / "checkpoint.safetensors"
    save_file(state, file)
    return file
