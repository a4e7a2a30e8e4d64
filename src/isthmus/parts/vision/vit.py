"""The vision transformer (Dosovitskiy et al., 2021): patches, CLS, learned positions, blocks, a norm."""

from typing import Literal

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.sizes import Size
from isthmus.nn.patches import ConvolutionalStem, PatchEmbedding, patch_grid
from isthmus.nn.positions import GridPositions
from isthmus.nn.transformer import Transformer, TransformerShape
from isthmus.parts.vision.encoder import Features, VisionEncoder, check_final_norm, depth_of


class ViT(VisionEncoder):
    """Tokens of a small or large vision transformer; other picture sizes get interpolated positions."""

    def __init__(
        self,
        *,
        image_size: int,
        patch: int,
        shape: TransformerShape,
        features: Features = "patches",
        stem: Literal["linear", "convolutional"] = "linear",
        layer: int | None = None,
        final_norm: bool = True,
    ) -> None:
        """Build the encoder.

        Args:
            image_size: Side of the square training pictures, in pixels.
            patch: Side of a patch, in pixels.
            shape: Sizes of the blocks.
            features: `patches`, `all` (CLS first) or `cls`.
            stem: How pixels become tokens: one linear map a patch, or small convolutions (Xiao et al., 2021).
            layer: Whose output leaves: 0 the embeddings, k what leaves block k, -1 the last block; later blocks are not
                built. None: the last.
            final_norm: Whether the norm behind the last block is built and applied; not at an earlier one.

        Raises:
            ValueError: `features` asks for a pooled or projected vector, which this encoder does not have, or there is
                no such layer or no norm behind it.
        """
        super().__init__()
        if features not in ("patches", "all", "cls"):
            raise ValueError(f"a ViT built here gives patches, all or cls, not '{features}'")
        self.image_size = Size(image_size, image_size)
        self.width = shape.width
        self.features: Features = features
        self.patch_embedding = (
            PatchEmbedding(patch=patch, width=shape.width)
            if stem == "linear"
            else ConvolutionalStem(patch=patch, width=shape.width)
        )
        self.positions = GridPositions(grid=patch_grid(self.image_size, patch), width=shape.width)
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape.width), std=0.02))
        self.transformer = Transformer(shape)
        depth = shape.num_layers if layer is None else depth_of(layer, num_layers=shape.num_layers)
        if layer is not None and final_norm:
            check_final_norm(layer, num_layers=shape.num_layers)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps) if final_norm else nn.Identity()
        self.not_built = tuple(f"transformer.blocks.{at}." for at in range(depth, shape.num_layers))
        """What the names of tensors begin with that the whole encoder has and this one lacks."""
        if not final_norm:
            self.not_built = (*self.not_built, "norm.")
        del self.transformer.blocks[depth:]

    def num_tokens(self, size: Size) -> int:
        """One token a patch, plus CLS where it is kept."""
        num_patches = patch_grid(size, self.patch_embedding.patch).area
        return {"patches": num_patches, "all": num_patches + 1}.get(self.features, 1)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """Encode pictures whose sides the patch divides."""
        grid = patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch_embedding.patch)
        patches = self.patch_embedding(pixels) + self.positions(grid)
        cls = repeat(self.cls, "dim -> image 1 dim", image=pixels.shape[0])
        tokens = self.norm(self.transformer(torch.cat([cls, patches], dim=1)))
        if self.features == "patches":
            return tokens[:, 1:]
        return tokens if self.features == "all" else tokens[:, :1]
