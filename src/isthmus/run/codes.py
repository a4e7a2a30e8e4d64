"""Judging codes: how well a visual tokenizer gives pictures back, and how often codes of hidden patches are named."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.sizes import Size
from isthmus.data.masked import MaskedImageProcessor, PictureProcessor
from isthmus.data.samples import Source
from isthmus.evaluation.statistics import bootstrap_mean
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.models.visual_tokenizer import VisualTokenizerModel
from isthmus.nn.patches import patch_grid
from isthmus.parts.vision.tokenizer import VisualTokenizer
from isthmus.run.picture_batches import exchanged, picture_batches
from isthmus.run.strips import StripFolder


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Some pictures and their codes, read back; for a masked image model also what it named, hidden patches alone."""

    batch: Batch
    codes: Int[Tensor, "image patch"]
    pictures: Float[Tensor, "image channel height width"]
    named: Int[Tensor, "image patch"] | None = None
    misled: Int[Tensor, "image patch"] | None = None


def judge_codes(
    model: MaskedImageModel | VisualTokenizerModel,
    processor: MaskedImageProcessor | PictureProcessor,
    source: Source,
    strips: StripFolder,
    *,
    seed: int,
) -> dict[str, Any]:
    """The error of pictures read back from their codes, how many codes are in use, and right codes of hidden patches.

    The controls: each picture as one colour; the commonest code of all; what is named where the patches of another
    picture are seen.
    """
    tokenizer = model.tokenizer
    assert tokenizer is not None
    found: dict[str, list[float]] = {"error": [], "one_colour": [], "right": [], "misled": []}
    counts, looked_at = torch.zeros(tokenizer.codes.num_embeddings), []
    examples: list[dict[str, Any]] = []
    for read in _read(model, processor, source):
        pixels = read.batch.pixels
        assert pixels is not None
        errors = (read.pictures - pixels).square().mean(dim=(1, 2, 3))
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        found["error"] += errors.tolist()
        found["one_colour"] += (mean - pixels).square().mean(dim=(1, 2, 3)).tolist()
        counts += torch.bincount(read.codes.flatten(), minlength=len(counts))
        if read.named is not None and read.misled is not None:
            hidden = read.batch.masked
            assert hidden is not None
            for name, said in (("right", read.named), ("misled", read.misled)):
                found[name] += _share(said == read.codes, hidden)
            looked_at.append((read.codes, hidden))
        for number in range(len(read.batch)):
            row = len(examples)
            example: dict[str, Any] = {"row": row, "error": float(errors[number])}
            if strips.has_room:
                shown = _strip(read, number, tokenizer)
                example["strip"] = strips.save([processor.pictures.images.picture_of(one) for one in shown])
            examples.append(example)
    generator = np.random.default_rng(seed)

    def mean_of(name: str) -> dict[str, Any]:
        return bootstrap_mean(np.array(found[name]), generator=generator).to_json()

    share = counts / counts.sum()
    metrics: dict[str, Any] = {
        "error": mean_of("error"),
        "codes_in_use": float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum())),
    }
    controls: dict[str, Any] = {"one_colour": {"error": mean_of("one_colour")}}
    if looked_at:
        metrics["right_codes"] = mean_of("right")
        common = torch.cat([codes[hidden] for codes, hidden in looked_at]).mode().values
        found["commonest"] = [
            share for codes, hidden in looked_at for share in _share(codes == common, hidden)
        ]
        controls["commonest"] = {"right_codes": mean_of("commonest")}
        controls["shuffled"] = {"right_codes": mean_of("misled")}
    return {"metrics": metrics, "controls": controls, "n": len(examples), "examples": examples}


def _share(right: Bool[Tensor, "image patch"], hidden: Bool[Tensor, "image patch"]) -> list[float]:
    """For each picture the share of its hidden patches that is right; pictures without hidden patches are left out."""
    counts = hidden.sum(1)
    return ((right & hidden).sum(1)[counts > 0] / counts[counts > 0]).tolist()


def _strip(read: _Read, number: int, tokenizer: VisualTokenizer) -> list[Tensor]:
    """The picture, its codes read back, and for a masked image model the same with the codes it named."""
    assert read.batch.pixels is not None
    shown = [read.batch.pixels[number], read.pictures[number]]
    if read.named is not None:
        assert read.batch.masked is not None
        codes = torch.where(read.batch.masked[number], read.named[number], read.codes[number])
        shown.append(_back(tokenizer, codes[None], read.batch.pixels)[0])
    return shown


@torch.inference_mode()
def _back(
    tokenizer: VisualTokenizer,
    codes: Int[Tensor, "image patch"],
    pixels: Float[Tensor, "like channel height width"],
) -> Float[Tensor, "image channel height width"]:
    """Pictures of a grid of codes, as large as `pixels`."""
    grid = patch_grid(Size(pixels.shape[2], pixels.shape[3]), tokenizer.patch)
    device = tokenizer.codes.weight.device
    return tokenizer.picture_of(tokenizer.codes(codes.to(device)), grid).float().cpu()


@torch.inference_mode()
def _read(
    model: MaskedImageModel | VisualTokenizerModel,
    processor: MaskedImageProcessor | PictureProcessor,
    source: Source,
) -> Iterator[_Read]:
    device, tokenizer = next(model.parameters()).device, model.tokenizer
    assert tokenizer is not None
    for batch in picture_batches(processor, source, device):
        assert batch.pixels is not None
        codes = tokenizer.codes_of(batch.pixels)
        pictures, shown = _back(tokenizer, codes, batch.pixels), batch.to("cpu")
        if isinstance(model, VisualTokenizerModel):
            yield _Read(batch=shown, codes=codes.cpu(), pictures=pictures)
            continue
        named, misled = (model.encode(one).predictions for one in (batch, exchanged(batch)))
        assert named is not None
        assert misled is not None
        yield _Read(
            batch=shown,
            codes=codes.cpu(),
            pictures=pictures,
            named=named.argmax(-1).cpu(),
            misled=misled.argmax(-1).cpu(),
        )
