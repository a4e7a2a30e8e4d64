"""Updates that are left out in training: how often, which, and that a pass can be done again."""

import copy

import pytest
import torch
from transformers.models.beit.modeling_beit import BeitDropPath

from isthmus.core.batch import Batch
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.drop_path import DropPath, rates_of
from isthmus.nn.transformer import Transformer, TransformerShape
from isthmus.parts.language.text_encoder import TextEncoder, TokenIds
from isthmus.parts.recomputation import set_recomputed
from isthmus.parts.vision.head import ImageHead
from isthmus.parts.vision.vit import ViT
from isthmus.training.parameters import set_modes, set_trainable


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_an_update_stays_or_goes_whole_and_its_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    rows = 20_000
    update = torch.full((rows, 2, 3), 2.0)
    out = DropPath(rate).train()(update)
    kept = (out != 0).flatten(1)
    assert torch.equal(kept.all(dim=1), kept.any(dim=1)), "one draw a sample"
    assert torch.allclose(out[kept[:, 0]], torch.tensor(2.0 / (1 - rate)))
    # A binomial count: the share's deviation is (rate (1 - rate) / rows)^0.5; four of them are one draw in 16,000.
    near = 4 * (rate * (1 - rate) / rows) ** 0.5
    assert kept[:, 0].float().mean().item() == pytest.approx(1 - rate, abs=near)
    assert out.mean().item() == pytest.approx(2.0, abs=2.0 * near / (1 - rate))


def test_it_is_beits_with_the_same_draws() -> None:
    update = torch.randn(64, 5, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = DropPath(0.3).train(), BeitDropPath(0.3).train()
    torch.manual_seed(2)
    found = ours(update)
    torch.manual_seed(2)
    assert torch.equal(found, theirs(update))
    assert 30 < int((found.flatten(1) != 0).any(dim=1).sum()) < 60


@pytest.mark.parametrize(("rate", "training"), [(0.4, False), (0.0, True)])
def test_otherwise_nothing_changes_and_nothing_is_drawn(rate: float, training: bool) -> None:
    update = torch.randn(8, 3)
    before = torch.get_rng_state()
    assert DropPath(rate).train(training)(update) is update
    assert torch.equal(torch.get_rng_state(), before)


def test_rates_rise_evenly_to_the_last_block_and_stay_when_blocks_are_cut_off() -> None:
    assert rates_of(0.1, num_layers=12) == pytest.approx(torch.linspace(0, 0.1, 12).tolist())
    assert rates_of(0.1, num_layers=1) == [0.0]
    shape = TransformerShape(width=8, num_layers=5, num_heads=2, drop_path=0.4)
    cut = ViT(image_size=16, patch=8, shape=shape, layer=3, final_norm=False)
    assert [block.drop_path.rate for block in cut.transformer.blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_what_is_computed_again_leaves_out_the_same() -> None:
    torch.manual_seed(0)
    kept = Transformer(TransformerShape(width=8, num_layers=3, num_heads=2, drop_path=0.6)).train()
    again = copy.deepcopy(kept)
    assert set_recomputed(again, enabled=True) == 3
    tokens = torch.randn(6, 4, 8)
    outs = []
    for one in (kept, again):
        torch.manual_seed(5)
        outs.append(one(tokens))
        outs[-1].square().sum().backward()
    assert torch.equal(*outs)
    for (name, ours), theirs in zip(kept.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    kept.eval()
    assert (kept(tokens) - outs[0]).abs().max() > 0.01, "something was left out"


def test_a_frozen_part_leaves_nothing_out() -> None:
    torch.manual_seed(0)
    shape = TransformerShape(width=8, num_layers=3, num_heads=2, drop_path=0.6)
    model = DualEncoder(
        vision=ViT(image_size=16, patch=8, shape=shape),
        image_head=ImageHead(vision_width=8, embed_dim=8),
        text=TextEncoder(tokens=TokenIds(vocabulary=5, context=4), shape=shape, embed_dim=8),
    )
    pixels = torch.randn(8, 3, 16, 16)
    batch = Batch(sample_ids=tuple("abcdefgh"), pixels=pixels)
    set_trainable(model, ["image_head", "text", "scale"])
    set_modes(model)
    assert torch.equal(model.image_vectors(batch), model.image_vectors(batch))
    set_trainable(model, ["vision"])
    set_modes(model)
    assert not torch.equal(model.image_vectors(batch), model.image_vectors(batch))
