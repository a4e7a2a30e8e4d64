"""CLIP and SigLIP give transformers' own numbers on the same random weights."""

import pytest
import torch
from dual_twins import (
    CONTEXT,
    PAD,
    batch,
    filled,
    hugging_face_clip,
    hugging_face_siglip,
    own_clip,
    own_siglip,
)
from torch.nn import functional

from isthmus.core.protocols import Progress
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.sigmoid import Sigmoid

CLOSE = 5e-6
"""Largest difference of logits up to 11 (and of their losses); measured 9.5e-7. With the other GELU it is 0.039."""


def logits_of(model: torch.nn.Module, given: object) -> torch.Tensor:
    encoded = model.encode(given)
    cosines = encoded.image_views[:, 0] @ encoded.text_vectors.T
    bias = model.logit_bias()
    return cosines * model.logit_scale() + (0 if bias is None else bias)


@torch.no_grad()
@pytest.mark.parametrize(("activation", "theirs"), [("quick_gelu", "quick_gelu"), ("gelu", "gelu")])
def test_clip_is_transformers_clip(activation: str, theirs: str) -> None:
    twin = hugging_face_clip(theirs)
    own = filled(own_clip(activation), twin)
    given = batch()
    expected = twin(
        input_ids=given.token_ids,
        pixel_values=given.pixels,
        attention_mask=given.attention_mask.long(),
        return_loss=True,
    )
    assert (logits_of(own, given) - expected.logits_per_image).abs().max() < CLOSE
    progress = Progress(step=0, num_steps=1)
    term = Contrastive(own)(own.encode(given), given, progress)["contrastive"]
    assert float(term.sum / term.count - expected.loss) == pytest.approx(0.0, abs=CLOSE)
    other = filled(own_clip("gelu" if activation == "quick_gelu" else "quick_gelu"), twin)
    assert (logits_of(other, given) - expected.logits_per_image).abs().max() > 100 * CLOSE, (
        "which GELU matters"
    )


@torch.no_grad()
def test_siglip_is_transformers_siglip() -> None:
    twin = hugging_face_siglip()
    own = filled(own_siglip(), twin)
    given = batch(end=PAD)
    # The published model reads texts filled up to the whole context with the end token, without a mask.
    ids = functional.pad(given.token_ids, (0, CONTEXT - given.token_ids.shape[1]), value=PAD)
    expected = twin(input_ids=ids, pixel_values=given.pixels, return_loss=True)
    assert (logits_of(own, given) - expected.logits_per_image).abs().max() < CLOSE
    term = Sigmoid(own)(own.encode(given), given, Progress(step=0, num_steps=1))["sigmoid"]
    assert float(term.sum / term.count - expected.loss) == pytest.approx(0.0, abs=CLOSE)


@torch.no_grad()
def test_a_text_has_the_same_vector_in_a_longer_batch() -> None:
    for own, end in ((own_clip(), 7), (own_siglip(), PAD)):
        given = batch(end=end)
        alone = own.text(given.token_ids[1:2, :3], given.attention_mask[1:2, :3])
        assert (own.text(given.token_ids, given.attention_mask)[1] - alone[0]).abs().max() < 1e-5
