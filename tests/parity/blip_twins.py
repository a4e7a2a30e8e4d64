"""Small BLIP models of transformers with random weights, of the sizes of `small_med`."""

from pathlib import Path

import torch
from small_med import DEC, SHAPE, WORDS
from torch import nn
from transformers import BlipConfig, PreTrainedModel

VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def twin(kind: type[PreTrainedModel], folder: Path, *, seed: int = 0) -> PreTrainedModel:
    """A model of transformers whose every weight is random, saved in `folder`."""
    torch.manual_seed(seed)
    config = BlipConfig(
        vision_config=VISION | {"image_size": 28, "patch_size": 14},
        text_config={
            "vocab_size": WORDS,
            "hidden_size": SHAPE.width,
            "encoder_hidden_size": VISION["hidden_size"],
            "intermediate_size": SHAPE.ffn,
            "num_hidden_layers": SHAPE.num_layers,
            "num_attention_heads": SHAPE.num_heads,
            "max_position_embeddings": 20,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "bos_token_id": DEC,
            "eos_token_id": 2,
            "sep_token_id": 2,
            "pad_token_id": 0,
        },
        image_text_hidden_size=8,
    )
    network = kind(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return network.eval()
