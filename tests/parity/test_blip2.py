"""BLIP-2 against transformers' own models with the same random weights, read from the folders that it writes.

Measured in float32 on one thread: similarities within 3e-8; match logits, logits of OPT (up to 2.8) and T5 (up to 3.3) and
losses equal bits. The bound for all is 2e-6, as other machines sum in other orders.
"""

from pathlib import Path

import blip2_twins
import pytest
import torch
from blip2_twins import IMAGE_ID, OPT, QUERIES, T5, WORDS
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Model

from isthmus.core.batch import IGNORED, Batch, VisualLayout
from isthmus.core.protocols import Progress
from isthmus.interop.blip2 import load_blip2
from isthmus.objectives.next_token import NextToken
from isthmus.objectives.representations import similarities
from isthmus.parts.checkpoints import PretrainedSource

BOUND = 2e-6


def pictures(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, 28, 28, generator=torch.Generator().manual_seed(3))


def texts(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    token_ids = torch.randint(1, WORDS - 1, (rows, 6), generator=torch.Generator().manual_seed(4))
    there = torch.ones(rows, 6, dtype=torch.bool)
    there[1, 4:] = False
    return token_ids, there


def test_contrast_and_match_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = blip2_twins.twin(Blip2ForImageTextRetrieval, tmp_path)
    ours = blip2_twins.pretrainer(tmp_path)
    assert set(load_blip2(ours, PretrainedSource(name=str(tmp_path)))) == {"vision", "connector", "heads"}
    pixels, (token_ids, there) = pictures(), texts()
    names = ("a", "b", "c")
    batch = Batch(sample_ids=names, pixels=pixels, token_ids=token_ids, attention_mask=there)
    with torch.no_grad():
        found = ours.encode(batch)
        assert found.image_views is not None
        assert found.text_vectors is not None
        scores = similarities(found.image_views, found.text_vectors)
        every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        matched = ours.match(found, batch, images=every[:, 1], texts=every[:, 0]).unflatten(0, (3, 3))
        for text in range(3):
            length = int(there[text].sum())
            said = {"input_ids": token_ids[[text], :length].expand(3, -1), "pixel_values": pixels}
            said["attention_mask"] = torch.ones_like(said["input_ids"])
            contrast = theirs(**said).logits_per_image
            match = theirs(**said, use_image_text_matching_head=True).logits_per_image
            torch.testing.assert_close(scores[:, text], contrast[:, 0], rtol=0, atol=BOUND)
            torch.testing.assert_close(matched[text], match, rtol=0, atol=BOUND)
    assert scores.std() > 0.01
    assert matched.std() > 0.01


def rows_with_pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Placeholders, then words; the second row is shorter."""
    words, there = texts()
    placeholders = torch.full((3, QUERIES), IMAGE_ID)
    token_ids = torch.cat([placeholders, words], dim=1)
    return token_ids, torch.cat([torch.ones(3, QUERIES, dtype=torch.bool), there], dim=1)


LAYOUT = VisualLayout(images_per_row=(1, 1, 1), tokens_per_image=(QUERIES,) * 3)


@pytest.mark.parametrize("kind", [Blip2ForConditionalGeneration, Blip2Model])
def test_the_second_stage_with_opt_is_that_of_transformers(kind: type, tmp_path: Path) -> None:
    theirs = blip2_twins.twin(kind, tmp_path)
    ours = blip2_twins.generator_model(tmp_path)
    load_blip2(ours, PretrainedSource(name=str(tmp_path)))
    token_ids, there = rows_with_pictures()
    targets = token_ids.masked_fill((token_ids == IMAGE_ID) | ~there, IGNORED)
    batch = Batch(
        sample_ids=("a", "b", "c"),
        pixels=pictures(),
        token_ids=token_ids,
        attention_mask=there,
        targets=targets,
        layout=LAYOUT,
    )
    with torch.no_grad():
        said = theirs(
            pixel_values=pictures(), input_ids=token_ids, attention_mask=there.long(), labels=targets
        )
        found = ours.logits(batch)
        terms = NextToken(ours)(ours.encode(batch), batch, Progress(step=0, num_steps=1))
    torch.testing.assert_close(found[there], said.logits[there], rtol=0, atol=BOUND)
    loss = terms["next_token"].sum / terms["next_token"].count
    torch.testing.assert_close(loss, said.loss, rtol=0, atol=BOUND)
    assert found.std() > 0.05


def test_the_second_stage_with_an_encoder_decoder_is_that_of_transformers(tmp_path: Path) -> None:
    theirs = blip2_twins.twin(Blip2ForConditionalGeneration, tmp_path, text=T5)
    ours = blip2_twins.generator_model(tmp_path, text=T5)
    load_blip2(ours, PretrainedSource(name=str(tmp_path)))
    token_ids, there = rows_with_pictures()
    answers = torch.randint(1, WORDS, (3, 4), generator=torch.Generator().manual_seed(6))
    start = torch.zeros(3, 1, dtype=torch.long)
    decoder_ids = torch.cat([start, answers], dim=1)
    batch = Batch(
        sample_ids=("a", "b", "c"),
        pixels=pictures(),
        token_ids=token_ids,
        attention_mask=there,
        decoder_ids=decoder_ids,
        decoder_mask=torch.ones_like(decoder_ids, dtype=torch.bool),
        targets=torch.cat([start + IGNORED, answers], dim=1),
        layout=LAYOUT,
    )
    with torch.no_grad():
        said = theirs(
            pixel_values=pictures(), input_ids=token_ids, attention_mask=there.long(), labels=answers
        )
        found = ours.logits(batch)
        terms = NextToken(ours)(ours.encode(batch), batch, Progress(step=0, num_steps=1))
    torch.testing.assert_close(found[:, :-1], said.logits, rtol=0, atol=BOUND)
    loss = terms["next_token"].sum / terms["next_token"].count
    torch.testing.assert_close(loss, said.loss, rtol=0, atol=BOUND)
    assert found.std() > 0.05
    assert OPT.model_type != T5.model_type
