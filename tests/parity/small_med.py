"""A small model of BLIP's kind, random; without transformers, so that processes that only train it start fast."""

import torch

from isthmus.models.med import Med, MedForm, StartIds
from isthmus.models.pair_heads import PairHeads
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.language.med import MedDecoder, MedEncoder, MedShape, MedText
from isthmus.parts.vision.vit import ViT, ViTForm

WORDS, DEC, ENC = 50, 48, 49
SHAPE = MedShape(width=16, num_layers=3, num_heads=2, ffn=24, dropout=0.0)


def med(*, norm_eps: float = 1e-5, form: MedForm | None = None, dropout: float = 0.0, seed: int = 9) -> Med:
    """The model; `blip_twins` has one of transformers of the same sizes."""
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
