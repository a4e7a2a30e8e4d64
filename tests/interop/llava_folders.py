"""Hugging Face folders of small LLaVAs, and whether a model computes what one of them does."""

from pathlib import Path

import torch
from llava_twins import CUT, VOCABULARY, WHOLE, joint_batch
from transformers import PreTrainedModel

from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource

SIZES = [[(33, 47), (16, 50)], [(40, 40)]]


def folder_of(network: PreTrainedModel, folder: Path) -> PretrainedSource:
    network.save_pretrained(folder)
    return PretrainedSource(name=str(folder))


def compare(network: PreTrainedModel, model: VisionLanguageModel) -> None:
    tiled = model.newline is not None
    joint = joint_batch(SIZES, tiled=tiled, left=False, image_processor=CUT if tiled else WHOLE)
    with torch.no_grad():
        theirs = network(**joint.theirs).logits
    real = joint.ours.attention_mask
    # Measured: equal bits.
    assert (model.logits(joint.ours)[..., :VOCABULARY] - theirs[..., :VOCABULARY])[real].abs().max() < 1e-6
