"""Sizes, batches, seeds."""

import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn

from isthmus.core.batch import IGNORED, Batch, VisualLayout, exchange_pictures
from isthmus.core.devices import choose_device, precision_for
from isthmus.core.errors import MachineError, UsageError
from isthmus.core.options import RunOptions
from isthmus.core.randomness import order_of, seed_of
from isthmus.core.sizes import Size, parse_size


def test_people_write_width_first_and_the_project_keeps_height_first() -> None:
    assert parse_size("640x480") == Size(height=480, width=640)
    assert parse_size("224") == Size(224, 224)


@pytest.mark.parametrize("text", ["", "0", "640x0", "640*480", "-3x4", "640x480x3"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_seeds_depend_on_every_name_and_on_nothing_else() -> None:
    assert seed_of(1, "a", 2) != seed_of(1, "a2")
    assert seed_of(1, "ab") != seed_of("1a", "b")
    code = "from isthmus.core.randomness import seed_of, order_of; print(seed_of(3, 'x'), order_of(9, 3, 'x').tolist())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert fresh.strip() == f"{seed_of(3, 'x')} {order_of(9, 3, 'x').tolist()}"


def test_first_position_never_counts_as_supervised() -> None:
    targets = torch.tensor([[5, IGNORED, 7], [IGNORED, 1, 1]])
    assert Batch(sample_ids=("a", "b"), targets=targets).num_supervised == 3


def test_exchanging_pictures_leaves_text_alone() -> None:
    batch = Batch(
        sample_ids=("a", "b", "c"),
        pixels=torch.arange(3.0).reshape(3, 1, 1, 1),
        token_ids=torch.tensor([[1], [2], [3]]),
        image_ids=("x", "y", "z"),
        layout=VisualLayout(images_per_row=(1, 1, 1), tokens_per_image=(1, 1, 1)),
    )
    other = exchange_pictures(batch, [2, 0, 1])
    assert other.pixels is not None
    assert other.pixels.flatten().tolist() == [2.0, 0.0, 1.0]
    assert other.image_ids == ("z", "x", "y")
    assert other.token_ids is batch.token_ids


def test_a_device_that_is_not_there_is_named() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no CUDA device"):
            choose_device("cuda")
    with pytest.raises(UsageError, match="'toaster' is no device; expected auto, cpu"):
        RunOptions(device="toaster")


@pytest.mark.parametrize(
    ("widths", "device", "asked", "meant"),
    [
        ((64, 160), "cpu", "auto", "fp32"),
        ((128, 512), "cpu", "auto", "auto"),
        ((768, 2), "cpu", "auto", "auto"),
        ((64, 160), "cpu", "bf16", "bf16"),
        ((64, 160), "cuda", "auto", "auto"),
        ((), "cpu", "auto", "auto"),
    ],
)
def test_a_narrow_model_keeps_single_precision_on_a_processor(
    widths: tuple[int, ...], device: str, asked: Literal["auto", "bf16"], meant: str
) -> None:
    layers = [nn.Linear(widths[0], width, device="meta") for width in widths]
    assert precision_for(nn.Sequential(*layers), torch.device(device), asked) == meant
