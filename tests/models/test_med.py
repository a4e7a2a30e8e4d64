"""BLIP's three modes against brute force, its slow copies, and how captions are written."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import Bool
from small_med import DEC, ENC, med
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.protocols import Captions, Contrasts, Matches, Progress, Remembers
from isthmus.generation.captions import WritesCaptions, write_captions
from isthmus.generation.decode import Decoding
from isthmus.models.med import MedForm
from isthmus.models.momentum import MomentumForm
from isthmus.objectives.momentum_contrastive import MomentumContrastive

NOW = Progress(step=5, num_steps=9)


def batch_of(rows: int = 3, *, seed: int = 0) -> Batch:
    drawn = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(3, DEC, (rows, 7), generator=drawn)
    there = torch.ones(rows, 7, dtype=torch.bool)
    there[1, 4:] = False
    return Batch(
        sample_ids=tuple(map(str, range(rows))),
        pixels=torch.randn(rows, 3, 28, 28, generator=drawn),
        token_ids=token_ids,
        attention_mask=there,
    )


def heard(mode: str, *, exchanged: int | None, in_picture: bool) -> Tensor:
    """States of a text of seven words after one word, or its picture, was exchanged; by the mode's own call."""
    model, batch = med().eval(), batch_of(rows=2)
    assert batch.token_ids is not None
    assert batch.attention_mask is not None
    assert batch.pixels is not None
    token_ids, pixels = batch.token_ids.clone(), batch.pixels.clone()
    if exchanged is not None:
        token_ids[0, exchanged] = 3 + (token_ids[0, exchanged] - 2) % (DEC - 3)
    if in_picture:
        pixels[0] = -pixels[0]
    changed = replace(batch, token_ids=token_ids, pixels=pixels)
    with torch.no_grad():
        encoded = model.encode(changed)
        assert encoded.patches is not None
        if mode == "write":
            return model.caption(encoded, changed)[0]
        pictures = model.text.look(encoded.patches) if mode == "match" else []
        allowed = batch.attention_mask.unsqueeze(1).expand(-1, 7, -1)
        return model.text(model.encoder.attentions, token_ids, allowed, pictures=pictures)[0][0]


@pytest.mark.parametrize("mode", ["read", "match", "write"])
def test_who_sees_what_in_each_mode(mode: str) -> None:
    """Exchange one word after the other and see which states move."""
    before = heard(mode, exchanged=None, in_picture=False)
    moved: Bool[Tensor, "exchanged state"] = torch.stack(
        [
            (heard(mode, exchanged=word, in_picture=False) - before).abs().amax(dim=1) > 1e-6
            for word in range(1, 7)
        ]
    )
    every = torch.ones(7, 7, dtype=torch.bool)
    expected = every.triu() if mode == "write" else every
    assert torch.equal(moved, expected[1:])
    picture = (heard(mode, exchanged=None, in_picture=True) - before).abs().amax(dim=1) > 1e-6
    assert picture.tolist() == [mode != "read"] * 7


def test_the_first_token_says_what_a_text_is_there_for() -> None:
    """Whatever stands there, captions begin with one token and matches with another; contrast keeps its own."""
    model, batch = med().eval(), batch_of()
    assert batch.token_ids is not None
    other = batch.token_ids.clone()
    other[:, 0] = 40
    changed = replace(batch, token_ids=other)
    every = torch.arange(3)
    with torch.no_grad():
        one, two = model.encode(batch), model.encode(changed)
        assert torch.equal(model.caption(one, batch), model.caption(two, changed))
        assert torch.equal(
            model.match(one, batch, images=every, texts=every),
            model.match(two, changed, images=every, texts=every),
        )
        assert one.text_vectors is not None
        assert two.text_vectors is not None
        assert not torch.allclose(one.text_vectors, two.text_vectors)
        assert {model.start_ids.caption, model.start_ids.match} == {DEC, ENC}


def test_padding_is_read_by_nobody() -> None:
    model, batch = med().eval(), batch_of()
    assert batch.token_ids is not None
    assert batch.attention_mask is not None
    short = Batch(
        sample_ids=("1",),
        pixels=None if batch.pixels is None else batch.pixels[1:2],
        token_ids=batch.token_ids[1:2, :4],
        attention_mask=batch.attention_mask[1:2, :4],
    )
    with torch.no_grad():
        whole, alone = model.encode(batch), model.encode(short)
        assert whole.text_vectors is not None
        assert alone.text_vectors is not None
        torch.testing.assert_close(whole.text_vectors[1:2], alone.text_vectors, rtol=0, atol=2e-6)
        one = torch.tensor([1])
        torch.testing.assert_close(
            model.match(whole, batch, images=one, texts=one),
            model.match(alone, short, images=one - 1, texts=one - 1),
            rtol=0,
            atol=2e-6,
        )


def test_encoder_and_decoder_share_all_but_self_attention() -> None:
    model = med()
    own = {name for name, _ in model.named_parameters() if name.startswith(("encoder.", "decoder."))}
    attentions = {name for name in own if ".attentions." in name}
    assert own - attentions == {
        *(f"decoder.head.{at}.{kind}" for at in (0, 2) for kind in ("weight", "bias")),
        "decoder.head_bias",
    }
    encoders = {name.removeprefix("encoder.") for name in attentions if name.startswith("encoder.")}
    assert encoders == {
        name.removeprefix("decoder.") for name in attentions - {f"encoder.{one}" for one in encoders}
    }


FORM = MedForm(momentum=MomentumForm(decay=0.9, queue=5, soft=0.4, ramp=0.0))


def test_slow_copies_move_by_their_formula_and_remember_the_steps_before() -> None:
    """Two updates by hand: copy after n steps is decay^n of the first weights and the rest of later ones."""
    model = med(form=FORM).train()
    model.begin()
    candidate: object = model
    for protocol in (Contrasts, Matches, Captions, Remembers, WritesCaptions):
        assert isinstance(candidate, protocol)
    assert model.momentum is not None
    first = {name: one.detach().clone() for name, one in model.named_parameters()}
    name = "encoder.attentions.1.query.weight"
    slow_before = model.slow_vectors(batch_of())
    assert slow_before.earlier_texts.shape == (0, 8)
    for step in (1, 2):
        if step == 2:
            model.slow_vectors(batch_of(seed=1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        model.after_step(NOW)
        held = model.momentum.copies()[name]
        expected = first[name] + (0.1 if step == 1 else 0.1 * 0.9 + 0.1 * 2)
        torch.testing.assert_close(held, expected, rtol=0, atol=1e-6)
    assert model.momentum.texts().shape == (5, 8)
    assert set(model.momentum.copies()) < set(first)
    assert not {
        one for one in model.momentum.copies() if one.startswith(("decoder", "text.cross", "heads.match"))
    }


def test_at_the_start_slow_vectors_are_the_models_own_and_nothing_is_trained_through_them() -> None:
    model = med(form=FORM).train()
    with torch.no_grad():
        model.heads.text.weight.add_(0.5)
    model.begin()
    batch = batch_of()
    encoded = model.encode(batch)
    slow = model.slow_vectors(batch)
    assert encoded.text_vectors is not None
    torch.testing.assert_close(slow.texts, encoded.text_vectors.detach(), rtol=0, atol=1e-6)
    assert not slow.images.requires_grad
    MomentumContrastive(model)(encoded, batch, NOW)["contrastive"].sum.backward()
    assert model.heads.text.weight.grad is not None
    assert not [name for name, _ in model.named_parameters() if "momentum" in name]


def test_a_frozen_vision_encoder_has_no_copy() -> None:
    form = replace(FORM, vision_learns=False)
    model = med(form=form)
    assert model.momentum is not None
    assert not [name for name in model.momentum.copies() if name.startswith("vision.")]


@pytest.mark.parametrize("temperature", [-1.0, 3.0])
def test_the_temperature_stays_in_its_range(temperature: float) -> None:
    model = med()
    with torch.no_grad():
        model.heads.temperature.fill_(temperature)
    model.after_step(NOW)
    assert model.heads.temperature.item() == pytest.approx(0.001 if temperature < 0 else 0.5)
    assert model.logit_scale().item() == pytest.approx(1000 if temperature < 0 else 2)


def test_greedy_captions_are_the_likeliest_words_one_after_the_other() -> None:
    """Against whole forward passes over growing texts, by the call that training uses."""
    model, batch = med().eval(), batch_of()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    ids = torch.full((3, 1), DEC)
    with torch.no_grad():
        for _ in range(6):
            said = replace(batch, token_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
            states = model.caption(model.encode(said), said)[:, -1]
            logits = model.caption_logits(states)
            logits[:, [DEC, ENC]] = -torch.inf
            ids = torch.cat([ids, logits.argmax(dim=1, keepdim=True)], dim=1)
    end = int(ids[0, 4])
    written = write_captions(model, batch, Decoding(max_new_tokens=6), end_id=end, pad_id=0)
    rows = ids[:, 1:].tolist()
    assert written == [row[: row.index(end)] if end in row else row for row in rows]


def test_matching_and_captions_share_what_words_read_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, places = med(), batch_of(), torch.arange(3)
    looks = []
    look = model.text.look
    monkeypatch.setattr(model.text, "look", lambda patches: looks.append(len(patches)) or look(patches))

    def learnt(*asked: str, together: bool) -> list[Tensor]:
        model.zero_grad()
        encoded = model.encode(batch)
        for one in asked:
            encoded = encoded if together else model.encode(batch)
            found = (
                model.match(encoded, batch, images=places, texts=places)
                if one == "match"
                else model.caption(encoded, batch)
            )
            (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward(
                retain_graph=True
            )
        return [p.grad.clone() for p in model.text.parameters() if p.grad is not None]

    shared = learnt("match", "caption", together=True)
    assert looks == [3]
    # Measured: equal bits.
    for one, other in zip(shared, learnt("match", "caption", together=False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert looks == [3, 3, 3]
