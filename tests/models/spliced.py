"""Small joined models of three families with their processors, for tests of splicing."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from isthmus.build.language import placeholder_of
from isthmus.config.joining import Placeholder
from isthmus.core.batch import Batch
from isthmus.core.sizes import Size
from isthmus.data.collate import collate
from isthmus.data.controls import MemoryImage
from isthmus.data.images import ImageProcessor
from isthmus.data.processor import PictureReader, VisionLanguageProcessor
from isthmus.data.samples import ImagePart, Sample, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.vision.vit import ViT

TOKENS = 4
WIDTH = 16
EXACT = 5e-7
"""Largest difference of logits in fp32 at this width; 3e-8 was measured, with any family, side and form."""
TOKENIZER = train_tokenizer(
    ["a dog runs on the grass what is it yes no sure"], algorithm="word", vocabulary=40, lower=True
)
VOCABULARY = len(TOKENIZER)
PICTURES = [
    MemoryImage(name=name, image=Image.new("RGB", (16, 16), colour))
    for name, colour in (("red", (200, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 200)))
]


def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return LlamaForCausalLM(config)


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=2,
        eos_token_id=3,
    )
    return GPT2LMHeadModel(config)


def gemma() -> PreTrainedModel:
    config = GemmaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return GemmaForCausalLM(config)


FAMILIES = {"llama": llama, "gpt2": gpt2, "gemma": gemma}


def model_of(family: str, placeholder: Placeholder = "virtual") -> VisionLanguageModel:
    torch.manual_seed(0)
    vision = ViT(image_size=16, patch=8, shape=TransformerShape(width=WIDTH, num_layers=1, num_heads=2))
    connector = MLPConnector(vision_width=WIDTH, language_width=WIDTH)
    language = LanguageModel(network=FAMILIES[family]())
    number = placeholder_of(placeholder, language)
    return VisionLanguageModel(
        vision=vision, connector=connector, language=language, placeholder_id=number
    ).eval()


def processor_of(
    model: VisionLanguageModel, template: str = "plain", context: int = 64
) -> VisionLanguageProcessor:
    codec = TextCodec(
        tokenizer=TOKENIZER,
        template=ChatTemplate.from_name(template),
        placeholder_id=model.placeholder_id,
        context=context,
    )
    images = ImageProcessor(size=Size(16, 16), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    return VisionLanguageProcessor(
        pictures=PictureReader(images=images), codec=codec, tokens_per_image=TOKENS
    )


def talk(*turns: Sequence[str | int]) -> Sample:
    """A conversation, users first; numbers are pictures."""
    roles = ("user", "assistant")
    return Sample(
        id="row",
        origin="rows.json row 0",
        images=tuple(PICTURES),
        turns=tuple(
            Turn(roles[at % 2], tuple(ImagePart(part) if isinstance(part, int) else part for part in parts))
            for at, parts in enumerate(turns)
        ),
    )


def batch_of(
    processor: VisionLanguageProcessor, *samples: Sample, side: str = "right", rows: str = "conversations"
) -> Batch:
    made = [processor.row(sample, rows=rows, choice=0) for sample in samples]
    return collate(made, pad_id=processor.pad_id, side=side)


def ids(words: str) -> list[int]:
    return TOKENIZER(words, add_special_tokens=False).input_ids


@torch.no_grad()
def visual(model: VisionLanguageModel, *numbers: int) -> Tensor:
    images = ImageProcessor(size=Size(16, 16), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = torch.stack([images(PICTURES[number].image) for number in numbers])
    return model.connector(model.vision(pixels)).flatten(0, 1)


@torch.no_grad()
def by_hand(model: VisionLanguageModel, *pieces: Tensor) -> Tensor:
    """transformers' own logits for a row whose embeddings are joined by hand."""
    return model.language.network(inputs_embeds=torch.cat(pieces)[None]).logits[0]


def words_of(model: VisionLanguageModel, numbers: list[int]) -> Tensor:
    return model.language.network.get_input_embeddings()(torch.tensor(numbers))
