"""Small BLIP-2 models of transformers with random weights, and ours of the same sizes."""

from pathlib import Path

import torch
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedModel,
    T5Config,
)

from isthmus.models.pair_heads import PairHeads
from isthmus.models.qformer_pretrainer import QFormerPretrainer
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.connectors.qformer import QFormer, QFormerText
from isthmus.parts.connectors.qformer_layers import QFormerShape
from isthmus.parts.language.encoder_decoder import EncoderDecoder, load_encoder_decoder
from isthmus.parts.language.language_model import LanguageModel, load_causal_network
from isthmus.parts.vision.pretrained import load_vision_encoder

VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
}
WORDS, QUERIES, IMAGE_ID = 50, 4, 60
SHAPE = QFormerShape(
    num_queries=QUERIES, width=16, num_layers=4, num_heads=2, ffn=24, dropout=0.0, patch_norm_eps=1e-6
)
OPT = OPTConfig(
    vocab_size=61,
    hidden_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    ffn_dim=32,
    word_embed_proj_dim=20,
    max_position_embeddings=64,
    dropout=0.0,
)
T5 = T5Config(
    vocab_size=61,
    d_model=20,
    d_kv=10,
    d_ff=32,
    num_layers=2,
    num_heads=2,
    feed_forward_proj="gated-gelu",
    dropout_rate=0.0,
    decoder_start_token_id=0,
    tie_word_embeddings=False,
)


def twin(
    kind: type[PreTrainedModel], folder: Path, *, text: OPTConfig | T5Config = OPT, seed: int = 0
) -> PreTrainedModel:
    """A model of transformers whose every weight is random, saved in `folder`."""
    torch.manual_seed(seed)
    words = {"vocab_size": WORDS, "max_position_embeddings": 12, "use_qformer_text_input": True}
    is_retrieval = kind is Blip2ForImageTextRetrieval
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION, patch_size=14),
        qformer_config=Blip2QFormerConfig(
            hidden_size=SHAPE.width,
            num_hidden_layers=SHAPE.num_layers,
            num_attention_heads=SHAPE.num_heads,
            intermediate_size=SHAPE.ffn,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **(words if is_retrieval else {}),
        ),
        text_config=text,
        num_query_tokens=QUERIES,
        image_text_hidden_size=8,
        image_token_index=None if is_retrieval else IMAGE_ID,
    )
    network = kind(config).eval()
    if isinstance(text, T5Config) and not is_retrieval:
        head = network.language_model.lm_head
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = 0.3 if name == "query_tokens" or "embedding" in name else 0.2
            parameter.normal_(std=spread)
            if name.endswith("norm.weight") or "layer_norm" in name or "LayerNorm.weight" in name:
                parameter.add_(1.0)
    network.save_pretrained(folder)
    return network


def vision_of(source: PretrainedSource) -> nn.Module:
    return load_vision_encoder(source, "all", layer=-1, final_norm=False)


def generator_model(folder: Path, *, text: OPTConfig | T5Config = OPT) -> VisionLanguageModel:
    """Our model of the second stage, its vision encoder and language model read from the folder, not yet its Q-Former."""
    source = PretrainedSource(name=str(folder), random=True)
    torch.manual_seed(9)
    language = (
        EncoderDecoder(network=load_encoder_decoder(source))
        if isinstance(text, T5Config)
        else LanguageModel(network=load_causal_network(source))
    )
    connector = QFormer(vision_width=VISION["hidden_size"], language_width=20, shape=SHAPE)
    vision = load_vision_encoder(source, "all", layer=-1, final_norm=False)
    return VisionLanguageModel(
        vision=vision, connector=connector, language=language, placeholder_id=IMAGE_ID
    ).eval()


def pretrainer(folder: Path) -> QFormerPretrainer:
    """Our model of the first stage, random but for nothing."""
    source = PretrainedSource(name=str(folder), random=True)
    torch.manual_seed(9)
    text = QFormerText(vocabulary=WORDS, context=12, shape=SHAPE)
    connector = QFormer(vision_width=VISION["hidden_size"], language_width=None, shape=SHAPE, text=text)
    heads = PairHeads(image_width=SHAPE.width, text_width=SHAPE.width, embed_dim=8, temperature=0.07)
    vision = load_vision_encoder(source, "all", layer=-1, final_norm=False)
    return QFormerPretrainer(vision=vision, connector=connector, heads=heads, start_id=WORDS - 1).eval()
