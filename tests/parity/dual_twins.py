"""Small random CLIP and SigLIP of transformers, and our dual encoders of the same sizes."""

from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from isthmus.core.batch import Batch
from isthmus.interop.dual_encoders import fill
from isthmus.interop.hugging_face_dual import own_names
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.feed_forward import Activation
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.language.text_encoder import TextEncoder, TokenIds
from isthmus.parts.vision.head import ImageHead, MapHead
from isthmus.parts.vision.vit import ViT, ViTForm

END, PAD, WORDS, CONTEXT = 7, 1, 40, 10
"""The end token is not the largest id, which is what makes a search for the largest id wrong."""

VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "vocab_size": WORDS,
    "max_position_embeddings": CONTEXT,
    "eos_token_id": END,
    "bos_token_id": 0,
    "pad_token_id": PAD,
}
PICTURE = {"image_size": 32, "patch_size": 8}


def shaken(model: nn.Module) -> nn.Module:
    """Freshly made models have zeros and ones, which would hide mistakes; scales stay as they are."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name not in ("logit_scale", "logit_bias"):
            nn.init.normal_(parameter, mean=0.05, std=0.25)
    return model.eval()


def hugging_face_clip(activation: str = "quick_gelu") -> CLIPModel:
    made = CLIPModel(
        CLIPConfig(
            vision_config=VISION | PICTURE | {"hidden_act": activation, "projection_dim": 16},
            text_config=TEXT | {"hidden_act": activation, "projection_dim": 16},
            projection_dim=16,
        )
    )
    shaken(made)
    return made


def hugging_face_siglip() -> SiglipModel:
    text = TEXT | {"hidden_size": 32, "num_attention_heads": 4, "projection_size": 32, "eos_token_id": PAD}
    made = SiglipModel(SiglipConfig(vision_config=VISION | PICTURE, text_config=text))
    shaken(made)
    with torch.no_grad():
        made.logit_scale.fill_(2.302585)
        made.logit_bias.fill_(-10.0)
    return made


def own_clip(
    activation: Activation = "quick_gelu", *, alpha: bool = False, image_size: int = 32
) -> DualEncoder:
    vision = TransformerShape(
        width=32, num_layers=3, num_heads=4, ffn_multiple=3.0, norm_eps=1e-5, activation=activation
    )
    text = TransformerShape(
        width=24, num_layers=2, num_heads=3, ffn_multiple=4.0, norm_eps=1e-5, activation=activation
    )
    form = ViTForm(cls="placed", pre_norm=True, patch_bias=False, alpha=alpha)
    return DualEncoder(
        vision=ViT(image_size=image_size, patch=8, shape=vision, features="cls", form=form),
        image_head=ImageHead(vision_width=32, embed_dim=16, pooling="first", norm="none"),
        text=TextEncoder(
            tokens=TokenIds(vocabulary=WORDS, context=CONTEXT, end_id=END, pad_id=PAD),
            shape=text,
            embed_dim=16,
        ),
    ).eval()


def own_siglip() -> DualEncoder:
    vision = TransformerShape(width=32, num_layers=3, num_heads=4, ffn_multiple=3.0, activation="tanh_gelu")
    text = TransformerShape(width=32, num_layers=2, num_heads=4, ffn_multiple=3.0, activation="tanh_gelu")
    return DualEncoder(
        vision=ViT(image_size=32, patch=8, shape=vision, form=ViTForm(cls="none")),
        image_head=MapHead(shape=vision),
        text=TextEncoder(
            tokens=TokenIds(vocabulary=WORDS, context=CONTEXT, end_id=PAD, pad_id=PAD),
            shape=text,
            embed_dim=32,
            pool="last",
            head_bias=True,
        ),
        scale_init=10.0,
        bias_init=-10.0,
    ).eval()


def own_lit(cls: Literal["plain", "placed"] = "plain") -> DualEncoder:
    """Only the text side has a head; texts are read at their last place."""
    vision = TransformerShape(width=32, num_layers=3, num_heads=4, ffn_multiple=3.0, activation="tanh_gelu")
    text = TransformerShape(width=32, num_layers=2, num_heads=4, ffn_multiple=3.0, activation="tanh_gelu")
    return DualEncoder(
        vision=ViT(image_size=32, patch=8, shape=vision, features="cls", form=ViTForm(cls=cls)),
        image_head=ImageHead(vision_width=32, embed_dim=None, pooling="first", norm="none"),
        text=TextEncoder(
            tokens=TokenIds(vocabulary=WORDS, context=CONTEXT, pad_id=PAD),
            shape=text,
            embed_dim=32,
            pool="last",
            head_bias=True,
        ),
        scale_init=10.0,
    ).eval()


def filled(own: DualEncoder, twin: CLIPModel | SiglipModel) -> DualEncoder:
    fill(own, own_names(twin.state_dict(), has_cls=isinstance(twin, CLIPModel)), name="the twin")
    return own


def batch(*, end: int = END, alpha: torch.Tensor | None = None, image_size: int = 32) -> Batch:
    """Five pictures and texts of different lengths, filled up on the right; some words have larger ids than the end."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(5, 3, image_size, image_size, generator=generator)
    ids = torch.full((5, 8), PAD)
    mask = torch.zeros(5, 8, dtype=torch.bool)
    for row, length in enumerate((8, 3, 5, 4, 6)):
        ids[row, : length - 1] = torch.randint(END + 1, WORDS, (length - 1,), generator=generator)
        ids[row, length - 1] = end
        mask[row, :length] = True
    names = tuple(map(str, range(5)))
    return Batch(sample_ids=names, pixels=pixels, token_ids=ids, attention_mask=mask, alpha=alpha)


def big_vision_arrays(model: DualEncoder, *, width: int, heads: int) -> dict[str, np.ndarray]:
    """A model's weights as big_vision would hold them, each array turned by hand."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    inner = width // heads
    arrays: dict[str, np.ndarray] = {
        "img/embedding/kernel": state["vision.patch_embedding.projection.weight"].transpose(2, 3, 1, 0),
        "img/embedding/bias": state["vision.patch_embedding.projection.bias"],
        "img/pos_embedding": state["vision.positions.table"][None],
        "txt/Embed_0/embedding": state["text.embedding.weight"],
        "txt/pos_embedding": state["text.positions"][None],
        "txt/head/kernel": state["text.projection.weight"].T,
        "txt/head/bias": state["text.projection.bias"],
        "t": state["scale.log_scale"],
    }

    def norm(place: str, name: str) -> None:
        arrays[f"{place}/scale"], arrays[f"{place}/bias"] = state[f"{name}.weight"], state[f"{name}.bias"]

    def dense(place: str, name: str) -> None:
        arrays[f"{place}/kernel"], arrays[f"{place}/bias"] = state[f"{name}.weight"].T, state[f"{name}.bias"]

    def attention(place: str, weight: np.ndarray, bias: np.ndarray, name: str) -> None:
        for at, word in enumerate(("query", "key", "value")):
            rows = slice(at * width, (at + 1) * width)
            arrays[f"{place}/{word}/kernel"] = weight[rows].T.reshape(width, heads, inner)
            arrays[f"{place}/{word}/bias"] = bias[rows].reshape(heads, inner)
        arrays[f"{place}/out/kernel"] = state[f"{name}.out.weight"].T.reshape(heads, inner, width)
        arrays[f"{place}/out/bias"] = state[f"{name}.out.bias"]

    for place, side, layers in (("img/Transformer", "vision", 3), ("txt/Encoder_0", "text", 2)):
        norm(f"{place}/encoder_norm", f"{side}.norm")
        for layer in range(layers):
            there, here = f"{place}/encoderblock_{layer}", f"{side}.transformer.blocks.{layer}"
            norm(f"{there}/LayerNorm_0", f"{here}.norm1")
            norm(f"{there}/LayerNorm_1", f"{here}.norm2")
            dense(f"{there}/MlpBlock_0/Dense_0", f"{here}.ffn.0")
            dense(f"{there}/MlpBlock_0/Dense_1", f"{here}.ffn.2")
            whole = state[f"{here}.attention.qkv.weight"], state[f"{here}.attention.qkv.bias"]
            attention(f"{there}/MultiHeadDotProductAttention_0", *whole, f"{here}.attention")
    if "vision.cls" in state:
        arrays["img/cls"] = state["vision.cls"][None, None]
    if "image_head.probe" in state:
        arrays["img/MAPHead_0/probe"] = state["image_head.probe"][None]
        norm("img/MAPHead_0/LayerNorm_0", "image_head.norm")
        dense("img/MAPHead_0/MlpBlock_0/Dense_0", "image_head.ffn.0")
        dense("img/MAPHead_0/MlpBlock_0/Dense_1", "image_head.ffn.2")
        name = "image_head.attention"
        joined = [
            np.concatenate([state[f"{name}.query.{kind}"], state[f"{name}.key_value.{kind}"]])
            for kind in ("weight", "bias")
        ]
        attention("img/MAPHead_0/MultiHeadDotProductAttention_0", *joined, name)
        arrays["b"] = state["scale.bias"]
    return {f"params/{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
