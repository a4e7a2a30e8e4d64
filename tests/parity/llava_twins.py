"""Small random LLaVAs of transformers, our models with the same weights, and the same batch for both."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.sizes import Size
from isthmus.data.collate import collate
from isthmus.data.images import CLIP_MEAN, CLIP_STD, ImageProcessor
from isthmus.data.processor import Picture, Row
from isthmus.data.tiles import Tiler
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.connectors.linear import LinearConnector
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.fusion.newline import Newline
from isthmus.parts.language.language_model import LanguageModel, load_causal_network
from isthmus.parts.vision.pretrained import load_vision_encoder

SIDE = 16
IMAGE = 60
VOCABULARY = 64
GRIDS = (Size(1, 2), Size(2, 1), Size(2, 2), Size(3, 1), Size(1, 3))
WHOLE = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
CUT = LlavaNextImageProcessorPil(
    size={"shortest_edge": SIDE},
    crop_size={"height": SIDE, "width": SIDE},
    image_grid_pinpoints=[[grid.height * SIDE, grid.width * SIDE] for grid in GRIDS],
)
VISION = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=SIDE,
    patch_size=4,
)
LLAMA = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=40,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
MISTRAL = MistralConfig(
    vocab_size=VOCABULARY,
    hidden_size=40,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    sliding_window=None,
)


def spread(network: nn.Module, seed: int = 0) -> None:
    """Random weights so large that every layer matters, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(noise * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1 + 0.3 * noise)


def llava(layer: int = -2, *, text: PretrainedConfig = LLAMA, linear: bool = False) -> PreTrainedModel:
    """transformers' LLaVA-1.5, or with one linear layer its first version."""
    config = LlavaConfig(
        vision_config=deepcopy(VISION),
        text_config=deepcopy(text),
        image_token_index=IMAGE,
        vision_feature_layer=layer,
    )
    network = LlavaForConditionalGeneration(config).eval()
    if linear:
        # transformers has no class for the first LLaVA's connector; the rest of the model is the same.
        network.model.multi_modal_projector = nn.Linear(VISION.hidden_size, text.hidden_size)
    spread(network)
    return network


def llava_next(layer: int = -2, *, text: PretrainedConfig = LLAMA) -> PreTrainedModel:
    """transformers' LLaVA-NeXT."""
    config = LlavaNextConfig(
        vision_config=deepcopy(VISION),
        text_config=deepcopy(text),
        image_token_index=IMAGE,
        vision_feature_layer=layer,
        image_grid_pinpoints=[[grid.height * SIDE, grid.width * SIDE] for grid in GRIDS],
    )
    network = LlavaNextForConditionalGeneration(config).eval()
    spread(network)
    return network


def random_twin(network: PreTrainedModel, folder: Path) -> VisionLanguageModel:
    """Our model of the same architecture with other random weights, built from the configurations of its two halves."""
    network.config.vision_config.save_pretrained(folder / "vision")
    network.config.text_config.save_pretrained(folder / "text")
    torch.manual_seed(1)
    layer = network.config.vision_feature_layer
    source = PretrainedSource(name=str(folder / "vision"), random=True)
    vision = load_vision_encoder(source, "patches", layer=layer, final_norm=False)
    language = LanguageModel(
        network=load_causal_network(PretrainedSource(name=str(folder / "text"), random=True))
    )
    widths = {"vision_width": vision.width, "language_width": language.width}
    is_linear = isinstance(network.model.multi_modal_projector, nn.Linear)
    return VisionLanguageModel(
        vision=vision,
        connector=LinearConnector(**widths) if is_linear else MLPConnector(**widths),
        language=language,
        placeholder_id=IMAGE,
        newline=Newline(language_width=language.width)
        if hasattr(network.config, "image_grid_pinpoints")
        else None,
    ).eval()


@dataclass
class Joint:
    """One batch as we pass it and as transformers takes it."""

    ours: Batch
    theirs: dict[str, Tensor]


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    """A picture of (height, width) pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def joint_batch(
    sizes: Sequence[Sequence[tuple[int, int]]], *, tiled: bool, left: bool, image_processor: object
) -> Joint:
    """Rows with pictures of these sizes between random words; the last third of each row's words is supervised.

    Args:
        sizes: (height, width) of each picture of each row.
        tiled: Whether pictures are cut.
        left: Where rows are filled up.
        image_processor: transformers' own for this model.
    """
    images = ImageProcessor(size=Size(SIDE, SIDE), resize="crop", mean=CLIP_MEAN, std=CLIP_STD)
    tiler = Tiler(images=images, grids=GRIDS)
    words = np.random.default_rng(7)
    rows, pictures = [], []
    for number, row_sizes in enumerate(sizes):
        row_pictures, ids, counts = [], [1], []
        for at, size in enumerate(row_sizes):
            picture = noise(size, 100 * number + at)
            pictures.append(picture)
            if tiled:
                tiles, cut = tiler(picture)
                row_pictures.append(Picture(id=f"{number}.{at}", tiles=tiles, cut=cut))
                counts.append(cut.num_tokens(Size(SIDE // 4, SIDE // 4)))
            else:
                row_pictures.append(Picture(id=f"{number}.{at}", pixels=images(picture)))
                counts.append((SIDE // 4) ** 2)
            ids += [IMAGE] * counts[-1] + words.integers(3, IMAGE, 2).tolist()
        ids += words.integers(3, IMAGE, 4 + 3 * number).tolist()
        supervised = len(ids) - 3
        targets = [IGNORED] * supervised + ids[supervised:]
        row = Row(
            sample_id=str(number),
            pictures=tuple(row_pictures),
            token_ids=ids,
            targets=targets,
            tokens_per_image=tuple(counts),
        )
        rows.append(row)
    batch = collate(rows, pad_id=0, side="left" if left else "right")
    assert batch.token_ids is not None and batch.attention_mask is not None and batch.targets is not None
    theirs = {
        "input_ids": batch.token_ids,
        "attention_mask": batch.attention_mask.long(),
        "labels": batch.targets,
    }
    if pictures:
        theirs |= dict(image_processor(pictures, return_tensors="pt"))  # type: ignore[operator]
    return Joint(ours=batch, theirs=theirs)
