"""The vision transformer (Dosovitskiy et al., 2021): patches, CLS, positions, blocks, a norm."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.core.sizes import Size
from isthmus.nn.patches import ConvolutionalStem, PatchEmbedding, patch_grid
from isthmus.nn.positions import FixedGridPositions, GridPositions
from isthmus.nn.relative import RelativeBias
from isthmus.nn.transformer import Block, Transformer, TransformerShape
from isthmus.parts.vision.alpha import AlphaConvolution, add_alpha
from isthmus.parts.vision.encoder import Features, VisionEncoder, check_final_norm, depth_of


@dataclass(frozen=True, kw_only=True)
class ViTForm:
    """In what published vision transformers differ besides their sizes.

    Attributes:
        stem: How pixels become tokens: one linear map a patch, or small convolutions (Xiao et al., 2021).
        patch_bias: Whether that linear map has a bias (CLIP's has none).
        cls: The summary token: `plain` stands before the patches without a position, `placed` has a position of its
            own (CLIP), `none` is left out (SigLIP).
        positions: Learned vectors, fixed sines and cosines (FLIP), which may belong to the weights (MAE), or none.
        relative: Whether attention scores depend on how far two patches lie apart (BEiT).
        mask_token: Whether hidden patches have a learned vector in their place (BEiT).
        last_norm: The normalisation behind the last block: a layer norm, or one by the root mean square (μOmni).
        pre_norm: Whether a layer norm stands before the first block (CLIP).
        alpha: Whether a fourth channel marks the region that is meant (Alpha-CLIP).
    """

    stem: Literal["linear", "convolutional"] = "linear"
    patch_bias: bool = True
    cls: Literal["plain", "placed", "none"] = "plain"
    positions: Literal["learned", "sincos", "stored_sincos", "none"] = "learned"
    relative: bool = False
    mask_token: bool = False
    last_norm: Literal["layer", "rms"] = "layer"
    pre_norm: bool = False
    alpha: bool = False


class ViT(VisionEncoder):
    """Tokens of a small or large vision transformer; other picture sizes get interpolated positions."""

    def __init__(
        self,
        *,
        image_size: int,
        patch: int,
        shape: TransformerShape,
        features: Features = "patches",
        form: ViTForm | None = None,
        layer: int | None = None,
        final_norm: bool = True,
    ) -> None:
        """Build the encoder.

        Args:
            image_size: Side of the square training pictures, in pixels.
            patch: Side of a patch, in pixels.
            shape: Sizes of the blocks.
            features: `patches`, `all` (CLS first) or `cls`.
            form: What else it is made of; None: patches with a bias, a plain CLS, learned positions.
            layer: Whose output leaves: 0 the embeddings, k what leaves block k, -1 the last block; later blocks are not
                built. None: the last.
            final_norm: Whether the norm behind the last block is built and applied; not at an earlier one.

        Raises:
            ValueError: `features` asks for a pooled or projected vector or a CLS, which this encoder does not have, or
                there is no such layer or no norm behind it, or the sizes do not suit the form.
        """
        super().__init__()
        form = form or ViTForm()
        if features not in ("patches", "all", "cls"):
            raise ValueError(f"a ViT built here gives patches, all or cls, not '{features}'")
        if features == "cls" and form.cls == "none":
            raise ValueError("features 'cls' is asked for, but cls is 'none'; use patches")
        self.image_size = Size(image_size, image_size)
        self.width = shape.width
        self.features: Features = features
        self.patch_embedding = _stem(form, patch=patch, width=shape.width)
        grid = patch_grid(self.image_size, patch)
        self.positions = _positions(form, grid=grid, width=shape.width)
        self.relative = RelativeBias(grid=grid, num_heads=shape.num_heads) if form.relative else None
        self.mask_token = _start(shape.width) if form.mask_token else None
        self.cls = _start(shape.width) if form.cls != "none" else None
        self.cls_position = _start(shape.width) if form.cls == "placed" else None
        self.pre_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps) if form.pre_norm else nn.Identity()
        self.transformer = Transformer(shape)
        depth = shape.num_layers if layer is None else depth_of(layer, num_layers=shape.num_layers)
        if layer is not None and final_norm:
            check_final_norm(layer, num_layers=shape.num_layers)
        kind = nn.LayerNorm if form.last_norm == "layer" else nn.RMSNorm
        self.norm = kind(shape.width, eps=shape.norm_eps) if final_norm else nn.Identity()
        self.not_built = tuple(f"transformer.blocks.{at}." for at in range(depth, shape.num_layers))
        """What the names of tensors begin with that the whole encoder has and this one lacks."""
        if not final_norm:
            self.not_built = (*self.not_built, "norm.")
        del self.transformer.blocks[depth:]

    @property
    def alpha(self) -> nn.Module | None:
        """The convolution that reads the fourth channel, where there is one."""
        if not isinstance(self.patch_embedding, PatchEmbedding):
            return None
        projection = self.patch_embedding.projection
        return projection.alpha if isinstance(projection, AlphaConvolution) else None

    def num_tokens(self, size: Size) -> int:
        """One token a patch, plus CLS where it is kept."""
        num_patches = patch_grid(size, self.patch_embedding.patch).area
        everything = num_patches + (self.cls is not None)
        return {"patches": num_patches, "all": everything}.get(self.features, 1)

    def forward(
        self,
        pixels: Float[Tensor, "image channel height width"],
        kept: Int[Tensor, "image kept"] | None = None,
        masked: Bool[Tensor, "image cell"] | None = None,
    ) -> Float[Tensor, "image patch dim"]:
        """Encode pictures whose sides the patch divides.

        Args:
            pixels: The pictures; with a fourth channel where the encoder has alpha.
            kept: Of each picture the patches that are looked at, by place in the flattened grid; None: all. CLS always
                stays. What is left out costs nothing in the blocks (Li et al., 2023, section 3).
            masked: True where the mask token stands in a patch's place (Bao et al., 2022, section 2.3).
        """
        embedded = self._embedded(pixels, kept, masked)
        first = (
            torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
            if self.features == "cls"
            else None
        )
        tokens = self.norm(self.transformer(embedded, bias=self._bias(pixels, kept), places=first))
        return tokens[:, 1:] if self.features == "patches" and self.cls is not None else tokens

    @torch.no_grad()
    def cls_attention(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image head token"]:
        """Where CLS looks in the last block: for each head shares of CLS itself and of every patch, which add up to 1.

        Raises:
            ValueError: There is no CLS, or no block.
        """
        blocks = self.transformer.blocks
        if self.cls is None or not blocks:
            raise ValueError(
                "this encoder has no CLS or no block, so CLS attends to nothing; use cls: plain or placed"
            )
        tokens, bias = self._embedded(pixels, None, None), self._bias(pixels, None)
        for block in blocks[:-1]:
            tokens = block(tokens, bias=bias)
        last = blocks[-1]
        assert isinstance(last, Block)
        return last.attention.weights(last.norm1(tokens), bias)[:, :, 0]

    def _grid(self, pixels: Float[Tensor, "image channel height width"]) -> Size:
        return patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch_embedding.patch)

    def _bias(
        self, pixels: Float[Tensor, "image channel height width"], kept: Int[Tensor, "image kept"] | None
    ) -> Float[Tensor, "head token key"] | None:
        """What relative positions add to the attention scores."""
        if self.relative is None:
            return None
        assert kept is None
        return self.relative(self._grid(pixels))

    def _embedded(
        self,
        pixels: Float[Tensor, "image channel height width"],
        kept: Int[Tensor, "image kept"] | None,
        masked: Bool[Tensor, "image cell"] | None,
    ) -> Float[Tensor, "image patch dim"]:
        """What enters the first block: CLS, where there is one, and the patches that are looked at."""
        tokens = self.patch_embedding(pixels)
        if masked is not None:
            assert self.mask_token is not None
            tokens = torch.where(masked.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        if self.positions is not None:
            tokens = tokens + self.positions(self._grid(pixels))
        if kept is not None:
            index = rearrange(kept, "image kept -> image kept 1").expand(-1, -1, tokens.shape[2])
            tokens = tokens.gather(1, index)
        if self.cls is not None:
            cls = self.cls if self.cls_position is None else self.cls + self.cls_position
            tokens = torch.cat([repeat(cls, "dim -> image 1 dim", image=pixels.shape[0]), tokens], dim=1)
        return self.pre_norm(tokens)


def _positions(form: ViTForm, *, grid: Size, width: int) -> GridPositions | FixedGridPositions | None:
    match form.positions:
        case "learned":
            return GridPositions(grid=grid, width=width)
        case "none":
            return None
        case _:
            return FixedGridPositions(grid=grid, width=width, stored=form.positions == "stored_sincos")


def _start(width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))


def _stem(form: ViTForm, *, patch: int, width: int) -> PatchEmbedding | ConvolutionalStem:
    if form.stem == "convolutional":
        if form.alpha or not form.patch_bias:
            raise ValueError(
                "a convolutional stem always has biases and reads three channels; use stem: linear"
            )
        return ConvolutionalStem(patch=patch, width=width)
    embedding = PatchEmbedding(patch=patch, width=width, bias=form.patch_bias)
    if form.alpha:
        embedding.projection = add_alpha(embedding.projection)
    return embedding
