"""How fast a training step is: CLIP and MAE beside transformers' own, and FLIP's image side with patches left out.

All ways of a table run in one process and in turn, because other work on the machine slows some rounds; a ratio is that
of two runs of one round, and the median over rounds is shown with the range. Weights are random, because time does not
depend on them.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from results import Page
from torch import Tensor, nn
from transformers import AutoModel, ViTMAEConfig, ViTMAEForPreTraining

from isthmus.build.model import build_model
from isthmus.build.names import card_file
from isthmus.config.load import load_recipe
from isthmus.core.batch import Batch
from isthmus.core.devices import has_fast_bf16, keep_freed_memory, number_format
from isthmus.core.protocols import Progress
from isthmus.core.randomness import generator_of
from isthmus.data.masked import draw_patches
from isthmus.data.masking import random_kept
from isthmus.models.dual_encoder import DualEncoder
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.masked_pixels import MaskedPixels
from isthmus.parts.checkpoints import PretrainedSource, load_network

_CLIP = "openai/clip-vit-base-patch32"
_CONTEXT, _END, _FLIP_DIM = 77, 49407, 512
_SHARES = (0.5, 0.25)
Step = Callable[[], None]
Seconds = Mapping[str, list[float]]


def main() -> int:
    """Measure both tables and write the page."""
    parser = argparse.ArgumentParser(
        description="Measure training steps; writes docs/results/training_speed.md."
    )
    parser.add_argument("--batch", type=int, default=16, help="pairs of a CLIP step")
    parser.add_argument("--pictures", type=int, default=16, help="pictures of an MAE or FLIP step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the page and write nothing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    formats = ["fp32", *(["bf16"] if has_fast_bf16(torch.device("cpu")) else [])]
    clip = {name: _in_turn(_clip(given.batch, name), given.rounds) for name in formats}
    mae = {name: _in_turn(_mae(given.pictures, name), given.rounds) for name in formats}
    flip = {name: _in_turn(_flip(given.pictures, name), given.rounds) for name in formats}
    page = _page(given, {"CLIP ViT-B/32": clip, "MAE ViT-B/16": mae}, flip)
    if given.print:
        print(page.text())
    else:
        settings = {"batch": given.batch, "pictures": given.pictures, "threads": given.threads}
        page.write("training_speed", settings | {"clip": clip, "mae": mae, "flip": flip})
    return 0


def _in_turn(ways: Mapping[str, Step], rounds: int) -> Seconds:
    """Seconds of each way in each round, after one that does not count; every other round begins with the last way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, step in list(ways.items())[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            step()
            if number:
                found[name].append(time.perf_counter() - started)
    return found


def _dual(recipe: str) -> DualEncoder:
    model = build_model(load_recipe(recipe).model, weights="random")
    assert isinstance(model, DualEncoder)
    return model.train()


def _pixels(count: int) -> Tensor:
    return torch.randn(count, 3, 224, 224, generator=generator_of("pixels"))


def _clip(num_pairs: int, precision: str) -> dict[str, Step]:
    """Forward, loss and backward of the same architecture, ours and transformers'."""
    ours = _dual("clip")
    theirs = load_network(AutoModel, PretrainedSource(name=_CLIP, random=True, card=card_file(_CLIP))).train()
    _same_size(ours, theirs)
    ids = torch.randint(1, 40000, (num_pairs, _CONTEXT), generator=generator_of("ids"))
    ids[:, -1] = _END
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(
        sample_ids=tuple(map(str, range(num_pairs))),
        pixels=_pixels(num_pairs),
        token_ids=ids,
        attention_mask=mask,
    )
    loss = Contrastive(ours)

    def step_of_ours() -> None:
        ours.zero_grad()
        with _format(precision):
            value = loss.loss(loss.representations(ours.encode(batch), batch))
        value.backward()

    def step_of_theirs() -> None:
        theirs.zero_grad()
        with _format(precision):
            value = theirs(
                input_ids=ids, pixel_values=batch.pixels, attention_mask=mask.long(), return_loss=True
            ).loss
        value.backward()

    return {"ours": step_of_ours, "transformers": step_of_theirs}


def _same_size(*models: nn.Module) -> None:
    """Fixed positions are parameters that do not learn in one of them and none in the other."""
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in models]
    if counts[0] != counts[1]:
        raise SystemExit(
            f"the two models train {counts[0]:,} and {counts[1]:,} parameters; expected the same"
        )


def _mae(num_pictures: int, precision: str) -> dict[str, Step]:
    """Forward, loss and backward of the same architecture, each side with random patches of its own."""
    ours = build_model(load_recipe("mae").model, weights="random").train()
    assert isinstance(ours, MaskedImageModel)
    theirs = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, layer_norm_eps=1e-6)).train()
    _same_size(ours, theirs)
    pixels, random = _pixels(num_pictures), generator_of("kept")
    drawn = [draw_patches(196, 0.75, random) for _ in range(num_pictures)]
    batch = Batch(
        sample_ids=tuple(map(str, range(num_pictures))),
        pixels=pixels,
        kept=torch.stack([kept for kept, _ in drawn]),
        masked=torch.stack([masked for _, masked in drawn]),
    )
    objective = MaskedPixels(patch=16, normalised=True)

    def step_of_ours() -> None:
        ours.zero_grad()
        with _format(precision):
            term = objective(ours.encode(batch), batch, Progress(step=0, num_steps=1))["masked_pixels"]
        (term.sum / term.count).backward()

    def step_of_theirs() -> None:
        theirs.zero_grad()
        with _format(precision):
            value = theirs(pixel_values=pixels).loss
        value.backward()

    return {"ours": step_of_ours, "transformers": step_of_theirs}


def _flip(num_pictures: int, precision: str) -> dict[str, Step]:
    """Forward and backward of the image side of FLIP's ViT-B/16, with all patches and with a share of them."""
    model = _dual("flip")
    pixels = _pixels(num_pictures)
    # Unit vectors have a constant length, so a sum of squares would send nothing but rounding back.
    direction = torch.randn(_FLIP_DIM, generator=generator_of("direction"))

    def step_of(share: float | None) -> Step:
        kept = None
        if share is not None:
            random = generator_of("kept")
            kept = torch.stack([random_kept(196, share, random) for _ in range(num_pictures)])
        batch = Batch(sample_ids=tuple(map(str, range(num_pictures))), pixels=pixels, kept=kept)

        def step() -> None:
            model.zero_grad()
            with _format(precision):
                vectors = model.image_vectors(batch)
            assert vectors is not None
            (vectors.float() @ direction).sum().backward()

        return step

    return {"all patches": step_of(None)} | {f"{share:.0%} of them": step_of(share) for share in _SHARES}


def _format(precision: str) -> torch.autocast:
    return number_format(torch.device("cpu"), "bf16" if precision == "bf16" else "fp32")


def _page(
    given: argparse.Namespace, beside: Mapping[str, Mapping[str, Seconds]], flip: Mapping[str, Seconds]
) -> Page:
    page = Page("Speed of training steps", " ".join(["python bench/training_speed.py", *sys.argv[1:]]))
    page.say(
        f"ViT-B at 224 pixels, random weights, {given.threads} thread(s), median of {given.rounds} rounds, in brackets",
        "the range. A ratio compares two steps of the same round; above 1 is faster.",
    )
    page.head("CLIP and MAE beside transformers' CLIPModel and ViTMAEForPreTraining, each with its own loss")
    page.say(
        f"Forward, loss and backward: {given.batch} pairs with {_CONTEXT} tokens each, {given.pictures} pictures of",
        "which a quarter of the patches is seen.",
    )
    page.table(
        ["model", "number format", "ours, s", "transformers, s", "ratio"],
        [
            [
                model,
                name,
                f"{median(found['ours']):.2f}",
                f"{median(found['transformers']):.2f}",
                _ratio(found, "ours", "transformers"),
            ]
            for model, formats in beside.items()
            for name, found in formats.items()
        ],
    )
    page.head("FLIP: the image side with patches left out")
    page.say(f"ViT-B/16, forward and backward of {given.pictures} pictures.")
    page.table(
        ["number format", "patches", "pictures a second", "ratio to all patches"],
        [
            [
                name,
                way,
                f"{given.pictures / median(seconds):.2f}",
                _ratio(found, way, "all patches"),
            ]
            for name, found in flip.items()
            for way, seconds in found.items()
        ],
    )
    return page


def _ratio(found: Seconds, way: str, base: str) -> str:
    """How many times faster `way` is than `base`."""
    ratios = [slow / fast for fast, slow in zip(found[way], found[base], strict=True)]
    return f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
