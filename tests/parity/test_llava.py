"""LLaVA, LLaVA-1.5 and LLaVA-NeXT against transformers' own models with the same weights: logits, loss, gradients.

Pictures go through both projects' own processors. Measured in float32 with logits up to 3.6: with right padding logits
are equal bits and gradients within 1e-7 of the largest of their tensor; with left padding, where transformers counts
positions from the start of the row and we from the first word, logits are within 3e-6 and gradients within 3e-6 of
their largest; losses within 5e-7. The bound for all is 1e-5.
"""

from pathlib import Path

import pytest
import torch
from llava_twins import CUT, LLAMA, MISTRAL, WHOLE, Joint, joint_batch, llava, llava_next, random_twin
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from isthmus.core.protocols import Progress
from isthmus.interop.weights import JointWeights, fill, prefixed, weights_of
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.objectives.next_token import NextToken

SQUARE, SMALL, WIDE, TALL, ODD = (40, 40), (16, 16), (17, 70), (90, 31), (33, 47)


def states_of(network: PreTrainedModel, what: str) -> JointWeights:
    """transformers' tensors (`data`) or their gradients (`grad`), in the names that our parts have."""
    inner = network.model

    def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
        named = dict(module.named_parameters())
        return {
            key: one.grad if what == "grad" else one.data
            for key, one in named.items()
            if one.grad is not None or what == "data"
        }

    connector = tensors(inner.multi_modal_projector)
    if "weight" in connector:
        connector = prefixed("linear", connector)
    newline = {}
    if hasattr(inner, "image_newline"):
        newline = {"vector": inner.image_newline.grad if what == "grad" else inner.image_newline.data}
    return JointWeights(
        vision=tensors(inner.vision_tower),
        connector=connector,
        newline=newline or None,
        language=prefixed("decoder", tensors(inner.language_model))
        | prefixed("head", tensors(network.lm_head)),
    )


def twin_of(network: PreTrainedModel, folder: Path) -> VisionLanguageModel:
    model = random_twin(network, folder)
    fill(model, states_of(network, "data"), name="the twin")
    return model


def assert_same(network: PreTrainedModel, model: VisionLanguageModel, joint: Joint) -> None:
    """Logits wherever a token stands, the loss, and the gradient of every weight."""
    theirs = network(**joint.theirs)
    real = joint.ours.attention_mask
    gap = (model.logits(joint.ours) - theirs.logits)[real].abs().max()
    assert gap < 1e-5
    assert theirs.logits[real].std() > 0.5  # something to differ from
    term = NextToken(model)(model.encode(joint.ours), joint.ours, Progress(step=0, num_steps=1))["next_token"]
    loss = term.sum / term.count
    assert abs(loss.item() - theirs.loss.item()) < 1e-5
    for one in (network, model):
        one.zero_grad()
    theirs.loss.backward()
    loss.backward()
    compared = 0
    due = states_of(network, "grad").parts()
    for part, tensors in weights_of(model).parts().items():
        for key in tensors:
            parameter = parameter_of(model, part, key)
            if key not in due[part]:
                assert parameter.grad is None, (part, key)
                continue
            expected = due[part][key]
            assert parameter.grad is not None, (part, key)
            assert (parameter.grad - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-7, (part, key)
            compared += 1
    assert compared > 45


def parameter_of(model: VisionLanguageModel, part: str, key: str) -> torch.nn.Parameter:
    match part:
        case "vision":
            return model.vision.network.get_parameter(key)
        case "newline":
            return model.newline.vector
        case "connector":
            names = {"linear": "map", "linear_1": "layers.0", "linear_2": "layers.2"}
            layer, _, leaf = key.rpartition(".")
            return model.connector.get_parameter(f"{names[layer]}.{leaf}")
        case _:
            place, _, rest = key.partition(".")
            return model.language.network.get_parameter(f"{'lm_head' if place == 'head' else 'model'}.{rest}")


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("linear", "layer"), [(True, -2), (False, -2), (False, -1), (False, 1)])
def test_llava(tmp_path: Path, linear: bool, layer: int, left: bool) -> None:
    network = llava(layer, linear=linear)
    joint = joint_batch([[SQUARE], [], [WIDE, TALL]], tiled=False, left=left, image_processor=WHOLE)
    assert_same(network, twin_of(network, tmp_path), joint)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        [[SQUARE]],
        [[WIDE], [TALL]],
        [[ODD], [], [SMALL]],
        [[SQUARE, WIDE, ODD], [TALL]],
    ],
    ids=["square", "wide-tall", "odd-text-small", "several"],
)
def test_llava_next(tmp_path: Path, sizes: list[list[tuple[int, int]]], left: bool) -> None:
    network = llava_next()
    joint = joint_batch(sizes, tiled=True, left=left, image_processor=CUT)
    assert_same(network, twin_of(network, tmp_path), joint)


@pytest.mark.parametrize("text", [LLAMA, MISTRAL], ids=["llama", "mistral"])
def test_other_language_models(tmp_path: Path, text: PretrainedConfig) -> None:
    network = llava_next(text=text)
    joint = joint_batch([[ODD, WIDE], [TALL]], tiled=True, left=False, image_processor=CUT)
    assert_same(network, twin_of(network, tmp_path), joint)
