"""How much memory a large contrastive batch takes: all activations kept, cached gradients, and the loss in blocks.

Every way runs in a process of its own, so that its peak memory is its own; what it held before its first step (weights,
pictures, libraries) is taken off. The way with one graph is written out with PyTorch's own functions and drops the same
units, so the page also says how far the gradients are apart.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from results import Page
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.randomness import generator_of, seed_of
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.transformer import TransformerShape
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.representations import Representations
from isthmus.objectives.sigmoid import Sigmoid
from isthmus.parts.language.text_encoder import TextEncoder, TokenIds
from isthmus.parts.vision.head import ImageHead
from isthmus.parts.vision.vit import ViT
from isthmus.run.demo import peak_memory_bytes
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_modes, set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer

SHAPE = TransformerShape(width=64, num_layers=4, num_heads=4, dropout=0.1)
SIDE, PATCH, CONTEXT, WORDS, DIM = 64, 8, 16, 1000, 64
STAGE = "pairs"
STEPS = {"small": "one graph of {micro}", "cached": "{batch:,} by {micro}", "graph": "one graph of {batch:,}"}
LOSSES = {
    "whole": "softmax, whole matrix (PyTorch)",
    "contrastive": "softmax in blocks",
    "sigmoid": "sigmoid in blocks",
}
SIZES = (1024, 2048, 4096)
_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""Every larger tensor is mapped by itself and given back when it is free. Otherwise the C library keeps pieces that it
cannot join: 250 MB instead of 50 for the softmax loss of 4,096 pairs in blocks."""


def main() -> int:
    """Measure one way in this process, or all in their own and write the page."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    if given.measure is not None:
        print(json.dumps(_measure(given)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        steps = {way: _in_a_process(given, way, given.batch, folder) for way in STEPS}
        losses = {
            size: {way: _in_a_process(given, way, size, folder) for way in LOSSES}
            for size in (given.sizes or SIZES)
        }
        apart = _apart(Path(folder))
    page = _page(given, steps, losses, apart)
    if given.print:
        print(page.text())
    else:
        settings = {"batch": given.batch, "micro": given.micro, "threads": given.threads}
        page.write("large_batch", settings | {"steps": steps, "losses": losses, "apart": apart})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure large contrastive batches; writes docs/results/large_batch.md."
    )
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--micro", type=int, default=64, help="rows in memory at once")
    parser.add_argument("--sizes", type=int, nargs="*", help="batches of which the loss alone is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the page and write nothing")
    parser.add_argument("--measure", choices=(*STEPS, *LOSSES), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    return parser


def _in_a_process(given: argparse.Namespace, way: str, batch: int, folder: str) -> dict[str, float]:
    options = [f"--measure={way}", f"--batch={batch}", f"--micro={given.micro}", f"--folder={folder}"]
    ran = subprocess.run(
        [sys.executable, __file__, *options, f"--threads={given.threads}"],
        env=os.environ | _GIVEN_BACK,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise SystemExit(f"measuring '{way}' failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def _measure(given: argparse.Namespace) -> dict[str, float]:
    """Megabytes that the step, or the loss, added to this process, and its seconds."""
    if given.measure in LOSSES:
        return _loss(given.measure, given.batch)
    model = _model()
    rows = given.micro if given.measure == "small" else given.batch
    batches = [_batch(first, given.micro) for first in range(0, rows, given.micro)]
    # What is loaded when a first step runs is not memory of the batch.
    _by_the_trainer(_model(), [_batch(0, 2), _batch(2, 2)])
    before, started = peak_memory_bytes(), time.perf_counter()
    gradients = (_one_graph if given.measure == "graph" else _by_the_trainer)(model, batches)
    measured = {
        "mb": (peak_memory_bytes() - before) / 1e6,
        "held_mb": before / 1e6,
        "seconds": time.perf_counter() - started,
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }
    save_file(gradients, given.folder / f"{given.measure}.safetensors")
    return measured


def _model() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(
        vision=ViT(image_size=SIDE, patch=PATCH, shape=SHAPE),
        image_head=ImageHead(vision_width=SHAPE.width, embed_dim=DIM),
        text=TextEncoder(tokens=TokenIds(vocabulary=WORDS, context=CONTEXT), shape=SHAPE, embed_dim=DIM),
    )


def _batch(first: int, rows: int) -> Batch:
    random = generator_of("large batch", first)
    return Batch(
        sample_ids=tuple(str(first + number) for number in range(rows)),
        pixels=torch.randn(rows, 3, SIDE, SIDE, generator=random),
        token_ids=torch.randint(WORDS, (rows, CONTEXT), generator=random),
        attention_mask=torch.ones(rows, CONTEXT, dtype=torch.bool),
    )


class _Given:
    """The same batches at every step."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def micro_batches(self, step: int) -> list[Batch]:
        del step
        return self._batches


def _by_the_trainer(model: DualEncoder, batches: list[Batch]) -> dict[str, Tensor]:
    """Gradients of one step as `isthmus train` does it."""
    split = set_trainable(model, tuple(model.parts()))
    Trainer(
        model=model,
        split=split,
        objectives={"contrastive": (Contrastive(model), 1.0)},
        stream=_Given(batches),
        settings=StageSettings(
            stage=STAGE,
            seed=0,
            num_steps=1,
            optimizer=OptimizerSettings(clip=None),
            precision="fp32",
            audit_steps=0,
        ),
        services=Services(),
    ).run()
    return _gradients(model)


def _one_graph(model: DualEncoder, batches: list[Batch]) -> dict[str, Tensor]:
    """Every activation kept; the seeds are those of the trainer, so that dropout drops the same."""
    set_trainable(model, tuple(model.parts()))
    set_modes(model)
    images, texts = [], []
    for number, batch in enumerate(batches):
        torch.manual_seed(seed_of(0, STAGE, 0, *((number,) if number else ())))
        encoded = model.encode(batch)
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        images.append(encoded.image_views[:, 0])
        texts.append(encoded.text_vectors)
    _whole(torch.cat(images), torch.cat(texts), model.logit_scale()).backward()
    return _gradients(model)


def _whole(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    logits, own = scale * images @ texts.T, torch.arange(images.shape[0])
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _loss(way: str, rows: int) -> dict[str, float]:
    """The loss alone, forward and backward, on given unit vectors."""
    model, random = _model(), generator_of("vectors")
    images, texts = (
        functional.normalize(torch.randn(rows, 512, generator=random), dim=-1).requires_grad_()
        for _ in range(2)
    )
    given = Representations(image_views=images[:, None], text_vectors=texts, image_of_text=torch.arange(rows))
    before, started = peak_memory_bytes(), time.perf_counter()
    match way:
        case "whole":
            value = _whole(images, texts, model.logit_scale())
        case "sigmoid":
            value = Sigmoid(model).loss(given)
        case _:
            value = Contrastive(model).loss(given)
    value.backward()
    return {"mb": (peak_memory_bytes() - before) / 1e6, "seconds": time.perf_counter() - started}


def _apart(folder: Path) -> dict[str, float]:
    """The largest difference between the two gradients of the large batch, and the largest gradient."""
    cached, graph = (load_file(folder / f"{way}.safetensors") for way in ("cached", "graph"))
    differences = [float((cached[name] - graph[name]).abs().max()) for name in graph]
    return {
        "difference": max(differences),
        "largest": max(float(gradient.abs().max()) for gradient in graph.values()),
    }


def _page(
    given: argparse.Namespace,
    steps: Mapping[str, Mapping[str, float]],
    losses: Mapping[int, Mapping[str, Mapping[str, float]]],
    apart: Mapping[str, float],
) -> Page:
    page = Page("A large contrastive batch in little memory", "python bench/large_batch.py")
    page.say(
        f"A dual encoder of {steps['cached']['parameters']:,.0f} parameters ({SHAPE.num_layers} layers of width",
        f"{SHAPE.width} for {SIDE}-pixel pictures and for {CONTEXT} tokens, dropout {SHAPE.dropout:g}), fp32,",
        f"{given.threads} thread(s). Memory is what one step added to the process; the pictures were there before,",
        "and free memory is given back.",
    )
    page.table(
        ["one step", "memory, MB", "times the small batch", "seconds", "pairs a second"],
        [_step_row(given, way, steps) for way in STEPS],
    )
    page.say(
        f"Gradients of {given.batch:,} by {given.micro} and of one graph of {given.batch:,}, dropout on, differ by at",
        f"most {apart['difference']:.1e}; the largest gradient is {apart['largest']:.2g}.",
    )
    page.head("The loss alone")
    page.say(
        "Forward and backward on vectors of 512 numbers: the whole matrix of similarities, or 256 rows of it at a",
        "time, computed again in the backward pass.",
    )
    page.table(
        ["batch", *(f"{text}, MB" for text in LOSSES.values()), *(f"{text}, s" for text in LOSSES.values())],
        [
            [
                f"{size:,}",
                *(f"{found[way]['mb']:,.0f}" for way in LOSSES),
                *(f"{found[way]['seconds']:.2f}" for way in LOSSES),
            ]
            for size, found in losses.items()
        ],
    )
    return page


def _step_row(given: argparse.Namespace, way: str, steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found, rows = steps[way], given.micro if way == "small" else given.batch
    return [
        STEPS[way].format(batch=given.batch, micro=given.micro),
        f"{found['mb']:,.0f}",
        f"{found['mb'] / steps['small']['mb']:.2f}",
        f"{found['seconds']:.1f}",
        f"{rows / found['seconds']:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
