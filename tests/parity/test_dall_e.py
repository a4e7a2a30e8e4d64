"""DALL-E's tokenizer against its description written out tensor by tensor, under OpenAI's names."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from isthmus.config.load import load_recipe
from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.core.options import RunOptions
from isthmus.core.sizes import Size
from isthmus.interop.dall_e import load_dall_e
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.parts.vision.dall_e import DallEShape, dall_e_tokenizer
from isthmus.parts.vision.tokenizer import VisualTokenizer
from isthmus.run.load import load
from isthmus.run.train import train

SHAPE = DallEShape(vocabulary=11, width=8, code_width=6, blocks=2)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
State = dict[str, Tensor]


def published(widths: tuple[int, ...], kernels: tuple[int, ...], first: int, last: int, kernel: int) -> State:
    """Random tensors of one of the two modules; `widths` are those between groups."""
    generator = torch.Generator().manual_seed(len(kernels) + first)
    state: State = {}

    def add(name: str, before: int, after: int, size: int) -> None:
        state[f"{name}.w"] = torch.randn(after, before, size, size, generator=generator) / before**0.5 / size
        state[f"{name}.b"] = torch.randn(after, generator=generator) / 10

    add("blocks.input", first, widths[0], kernel)
    for group in range(1, 5):
        for block in (1, 2):
            before, after = widths[group - 1] if block == 1 else widths[group], widths[group]
            place = f"blocks.group_{group}.block_{block}"
            if before != after:
                add(f"{place}.id_path", before, after, 1)
            inner = [before, after // 4, after // 4, after // 4, after]
            for number, size in enumerate(kernels, start=1):
                add(f"{place}.res_path.conv_{number}", inner[number - 1], inner[number], size)
    add("blocks.output.conv", widths[4], last, 1)
    return state


ENCODER = published((8, 8, 16, 32, 64), (3, 3, 3, 1), first=3, last=11, kernel=7)
DECODER = published((6, 64, 32, 16, 8), (1, 3, 3, 3), first=11, last=6, kernel=1)


def conv(state: State, name: str, tokens: Tensor) -> Tensor:
    weight = state[f"{name}.w"]
    return functional.conv2d(tokens, weight, state[f"{name}.b"], padding=(weight.shape[-1] - 1) // 2)


def run(state: State, tokens: Tensor, *, between: str) -> Tensor:
    """One of the two modules, from its first layer to its last."""
    tokens = conv(state, "blocks.input", tokens)
    for group in range(1, 5):
        for block in (1, 2):
            place, update = f"blocks.group_{group}.block_{block}", tokens
            for number in range(1, 5):
                update = conv(state, f"{place}.res_path.conv_{number}", functional.relu(update))
            same = conv(state, f"{place}.id_path", tokens) if f"{place}.id_path.w" in state else tokens
            tokens = same + update / 64
        if group < 4 and between == "halve":
            tokens = functional.max_pool2d(tokens, kernel_size=2)
        elif group < 4:
            tokens = tokens.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return conv(state, "blocks.output.conv", functional.relu(tokens))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(ENCODER, tmp_path / "encoder.safetensors")
    save_file(DECODER, tmp_path / "decoder.safetensors")
    return tmp_path


def made(folder: Path, patch: int = 8) -> VisualTokenizer:
    tokenizer = dall_e_tokenizer(SHAPE, patch=patch, mean=MEAN, std=STD)
    load_dall_e(tokenizer, folder, name="codes")
    return tokenizer.eval()


def normalised(levels: Tensor) -> Tensor:
    return (levels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def test_codes_and_pictures_are_those_of_the_published_networks(folder: Path) -> None:
    levels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    expected = run(ENCODER, 0.8 * levels + 0.1, between="halve")
    tokenizer = made(folder)
    found = tokenizer.logits(normalised(levels))
    # Largest differences measured: 2.4e-7 on scores up to 1.2, and 6.0e-7 on pixels below.
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-6)
    codes = expected.argmax(dim=1)
    assert torch.equal(tokenizer.codes_of(normalised(levels)), codes.flatten(1))
    assert len(codes.unique()) > 1
    one_hot = functional.one_hot(codes, 11).permute(0, 3, 1, 2).float()
    drawn = torch.sigmoid(run(DECODER, one_hot, between="double")[:, :3])
    back = tokenizer.picture_of(tokenizer.codes(codes.flatten(1)), Size(4, 6))
    torch.testing.assert_close(back, normalised(((drawn - 0.1) / 0.8).clamp(0, 1)), rtol=0, atol=2e-6)
    assert torch.equal(tokenizer(normalised(levels))[1], back)


def test_a_patch_of_sixteen_sees_the_picture_at_half_the_size(folder: Path) -> None:
    # Colours that do not change within 16 pixels are the same at half the size, edges apart.
    small = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(2)).expand(-1, -1, 32, 32)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    halved, whole = made(folder, patch=16), made(folder)
    assert torch.equal(halved.codes_of(normalised(large)), whole.codes_of(normalised(small)))
    codes = whole.codes_of(normalised(small))
    pictures = [one.picture_of(one.codes(codes), Size(4, 4)) for one in (whole, halved)]
    assert pictures[1].shape == (1, 3, 64, 64)
    torch.testing.assert_close(
        pictures[1][..., 1:-1, 1:-1].mean(dim=(2, 3)), pictures[0].mean(dim=(2, 3)), rtol=0, atol=0.05
    )


def test_the_published_size() -> None:
    with torch.device("meta"):
        tokenizer = dall_e_tokenizer(DallEShape(), patch=16, mean=MEAN, std=STD)
    count = {name: sum(one.numel() for one in part.parameters()) for name, part in tokenizer.named_children()}
    assert count["scores"] == closed_form((256, 256, 512, 1024, 2048), (9, 9, 9, 1), 3 * 49, 8192)
    assert count["decoder"] + count["codes"] == closed_form(
        (128, 2048, 1024, 512, 256), (1, 9, 9, 9), 8192, 6
    )


def closed_form(widths: tuple[int, ...], areas: tuple[int, ...], first: int, last: int) -> int:
    total = widths[0] * (first + 1) + last * (widths[4] + 1)
    for before, after in pairwise(widths):
        for entry in (before, after):
            inner = [entry, after // 4, after // 4, after // 4, after]
            total += sum(inner[at + 1] * (inner[at] * area + 1) for at, area in enumerate(areas)) + (
                after * (entry + 1) if entry != after else 0
            )
    return total


def test_files_that_do_not_fit_are_refused_with_every_difference(folder: Path, tmp_path: Path) -> None:
    tokenizer = dall_e_tokenizer(SHAPE, patch=8, mean=MEAN, std=STD)
    fewer = {name: tensor for name, tensor in DECODER.items() if name != "blocks.output.conv.b"}
    save_file(fewer | {"blocks.input.b": torch.zeros(5)}, folder / "decoder.safetensors")
    with pytest.raises(
        CheckpointError, match=r"decoder\.bias is \(5,\), expected \(6,\); missing decoder\.output\.bias"
    ):
        load_dall_e(tokenizer, folder, name="codes")
    save_file(DECODER | {"blocks.more": torch.zeros(5)}, folder / "decoder.safetensors")
    with pytest.raises(CheckpointError, match=r"codes holds 'blocks\.more', which is no part of DALL-E's"):
        load_dall_e(tokenizer, folder, name="codes")
    (folder / "decoder.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_dall_e(tokenizer, folder, name="codes")
    (folder / "decoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"decoder\.safetensors is missing; expected the state dict"):
        load_dall_e(tokenizer, folder, name="codes")
    with pytest.raises(ValueError, match="patch 12 must be 8, 16, 24"):
        dall_e_tokenizer(SHAPE, patch=12, mean=MEAN, std=STD)


RECIPE = """
name: small-dall-e
data: {scenes: {kind: scenes, split: train, num_samples: 40, image_size: 32}}
model:
  kind: masked_image_model
  vision:
    {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2, features: all, mask_token: true}
  predictor: {kind: codes}
  masking: {kind: blockwise, patches: 6, least_block: 2}
  tokenizer: {kind: dall_e, patch: 8, vocabulary: 11, width: 8, code_width: 6, weights: WEIGHTS}
stages:
  - {kind: train, name: pretrain, train: [vision, predictor], objective: {masked_tokens: 1.0}, data: scenes,
     rows: pictures, steps: 2, batch_size: 4, optimizer: {lr: 1.0e-3}}
evaluation: {task: reconstruction, val: scenes, test: scenes}
"""


def test_a_recipe_predicts_the_codes_of_these_weights(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("WEIGHTS", str(folder)), encoding="utf-8")
    train(load_recipe(file), out=tmp_path / "run", options=RunOptions())
    run = load(tmp_path / "run")
    model = run.workshop.model
    assert isinstance(model, MaskedImageModel)
    assert model.tokenizer is not None
    own = (0.5, 0.5, 0.5)
    expected = dall_e_tokenizer(SHAPE, patch=8, mean=own, std=own)
    load_dall_e(expected, folder, name="codes")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.tokenizer.codes_of(pixels), expected.codes_of(pixels))
    file.write_text(RECIPE.replace(", weights: WEIGHTS", ""), encoding="utf-8")
    with pytest.raises(RecipeError, match="hands on a trained tokenizer"):
        load_recipe(file)
