"""Small BLIP models of transformers with random weights, and ours of the same sizes."""

from pathlib import Path

import torch
from torch import nn
from transformers import BlipConfig, PreTrainedModel

from isthmus.models.med import Med, MedForm, StartIds
from isthmus.models.pair_heads import PairHeads
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.language.med import MedDecoder, MedEncoder, MedShape, MedText
from isthmus.parts.vision.vit import ViT, ViTForm

WORDS, DEC, ENC = 50, 48, 49
SHAPE = MedShape(width=16, num_layers=3, num_heads=2, ffn=24, dropout=0.0)
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


def med(*, norm_eps: float = 1e-5, form: MedForm | None = None, dropout: float = 0.0, seed: int = 9) -> Med:
    """Our model of the same sizes, random."""
    torch.manual_seed(seed)
    shape = MedShape(
        width=SHAPE.width,
        num_layers=SHAPE.num_layers,
        num_heads=SHAPE.num_heads,
        ffn=SHAPE.ffn,
        dropout=dropout,
    )
    vision = ViT(
        image_size=28,
        patch=14,
        shape=TransformerShape(width=24, num_layers=2, num_heads=2, ffn_multiple=2.0, norm_eps=norm_eps),
        features="all",
        form=ViTForm(cls="placed"),
    )
    return Med(
        vision=vision,
        text=MedText(vocabulary=WORDS, context=20, vision_width=24, shape=shape),
        encoder=MedEncoder(shape=shape),
        decoder=MedDecoder(shape=shape, vocabulary=WORDS),
        heads=PairHeads(image_width=24, text_width=16, embed_dim=8, temperature=0.07),
        start_ids=StartIds(caption=DEC, match=ENC),
        form=form,
    )
