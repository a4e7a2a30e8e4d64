"""Judging a masked image model: how well hidden patches are predicted, and pictures to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import reduce, repeat
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.errors import UsageError
from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor
from isthmus.data.masked import MaskedImageProcessor, PictureProcessor
from isthmus.data.samples import Source
from isthmus.evaluation.statistics import bootstrap_mean
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.models.visual_tokenizer import VisualTokenizerModel
from isthmus.nn.patches import patch_grid, patchify, unpatchify
from isthmus.objectives.masked_pixels import EPS, MaskedPixels
from isthmus.parts.vision.tokenizer import VisualTokenizer
from isthmus.run.codes import judge_codes
from isthmus.run.load import LoadedRun
from isthmus.run.picture_batches import exchanged, picture_batches
from isthmus.run.strips import StripFolder

_HIDDEN = (128, 128, 128)
"""What stands in the place of hidden patches, in 8 bits."""


def judge_reconstruction(loaded: LoadedRun, source: Source, *, seed: int) -> dict[str, Any]:
    """How well hidden patches are predicted, as pixels or as codes, or pictures given back from their codes.

    Raises:
        UsageError: The run holds no model of this kind.
    """
    model, processor = loaded.workshop.model, loaded.workshop.processor
    strips = StripFolder(loaded.directory.path)
    with loaded.number_format():
        match model, processor:
            case VisualTokenizerModel(), PictureProcessor():
                found = judge_codes(model, processor, source, strips, seed=seed)
            case MaskedImageModel(tokenizer=VisualTokenizer()), MaskedImageProcessor():
                found = judge_codes(model, processor, source, strips, seed=seed)
            case MaskedImageModel(), MaskedImageProcessor():
                found = _judge_pixels(model, processor, source, strips, seed=seed)
            case _:
                raise UsageError(
                    f"{loaded.directory.path} holds no masked image model; judge it by another task"
                )
    return {"task": "reconstruction"} | found


def _judge_pixels(
    model: MaskedImageModel,
    processor: MaskedImageProcessor,
    source: Source,
    strips: StripFolder,
    *,
    seed: int,
) -> dict[str, Any]:
    """Mean squared error of hidden patches, in the units that were learnt.

    The controls: one colour a patch (of patches predicted relative to themselves their own mean, else the mean of the
    patches that are seen), and what is predicted where the patches of another picture are seen.
    """
    found: dict[str, list[float]] = {"real": [], "one_colour": [], "shuffled": []}
    examples: list[dict[str, Any]] = []
    for rebuilt in _rebuilt(model, processor, source):
        for name, errors in rebuilt.errors.items():
            found[name] += errors.tolist()
        for number in range(len(rebuilt.batch)):
            example: dict[str, Any] = {"row": len(examples), "error": float(rebuilt.errors["real"][number])}
            if strips.has_room:
                example["strip"] = strips.save(rebuilt.strip(number, processor.pictures.images))
            examples.append(example)
    generator = np.random.default_rng(seed)
    estimates = {
        name: {"error": bootstrap_mean(np.array(errors), generator=generator).to_json()}
        for name, errors in found.items()
    }
    return {
        "metrics": estimates.pop("real"),
        "controls": estimates,
        "n": len(examples),
        "examples": examples,
    }


@dataclass(frozen=True, kw_only=True)
class _Rebuilt:
    """Some pictures, what was predicted of them, and each one's mean error under each condition."""

    batch: Batch
    patch: int
    predicted: Float[Tensor, "image patch value"]
    errors: dict[str, Float[Tensor, " image"]]

    def strip(self, number: int, images: ImageProcessor) -> list[Image.Image]:
        """The picture, what the encoder saw of it, and what was seen and predicted together."""
        assert self.batch.pixels is not None
        assert self.batch.masked is not None
        pixels = self.batch.pixels[number : number + 1]
        hidden = self.batch.masked[number : number + 1].unsqueeze(-1)
        patches = patchify(pixels, self.patch)
        size = (pixels.shape[3], pixels.shape[2])
        grey = patchify(images.normalised(Image.new("RGB", size, _HIDDEN)).unsqueeze(0), self.patch)
        grid = patch_grid(Size(*pixels.shape[2:]), self.patch)
        shown = [
            patches,
            torch.where(hidden, grey, patches),
            torch.where(hidden, self.predicted[number : number + 1], patches),
        ]
        return [images.picture_of(unpatchify(one, self.patch, grid)[0]) for one in shown]


def _seen_colour(
    patches: Float[Tensor, "image patch value"], hidden: Bool[Tensor, "image patch"]
) -> Float[Tensor, "image patch value"]:
    """For every patch the mean colour of those that are seen."""
    seen = (~hidden).unsqueeze(-1)
    mean = (patches * seen).sum(1) / seen.sum(1)
    colour = reduce(mean, "image (pixel channel) -> image channel", "mean", channel=3)
    return repeat(
        colour,
        "image channel -> image patch (pixel channel)",
        patch=patches.shape[1],
        pixel=patches.shape[2] // 3,
    )


@torch.inference_mode()
def _rebuilt(model: MaskedImageModel, processor: MaskedImageProcessor, source: Source) -> Iterator[_Rebuilt]:
    device = next(model.parameters()).device
    patch = model.vision.patch_embedding.patch
    objective = MaskedPixels(patch=patch, normalised=model.normalised)
    for batch in picture_batches(processor, source, device):
        assert batch.pixels is not None
        assert batch.masked is not None
        predicted = model.encode(batch).predictions
        misled = model.encode(exchanged(batch)).predictions
        assert predicted is not None
        assert misled is not None
        targets, patches = objective.targets(batch), patchify(batch.pixels, patch)
        means = patches.mean(dim=-1, keepdim=True)
        blank = torch.zeros_like(targets) if model.normalised else _seen_colour(patches, batch.masked)
        ways = {"real": predicted, "one_colour": blank, "shuffled": misled}
        hidden = batch.masked
        errors = {
            name: (((way - targets).square().mean(-1) * hidden).sum(1) / hidden.sum(1)).cpu()
            for name, way in ways.items()
        }
        if model.normalised:
            # As the published demonstration does: the mean and spread that the target was freed of come back.
            predicted = predicted * (patches.var(dim=-1, keepdim=True) + EPS).sqrt() + means
        yield _Rebuilt(batch=batch.to("cpu"), patch=patch, predicted=predicted.cpu(), errors=errors)
