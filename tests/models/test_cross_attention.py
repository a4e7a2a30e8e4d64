"""Models whose text reads pictures through gated blocks: identity at the start, padding, rows, writing, trained rows."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from isthmus.core.batch import IGNORED, Batch, VisualLayout
from isthmus.core.protocols import Progress
from isthmus.generation.decode import Decoding, generate
from isthmus.models.vision_language_model import AttentionPath, VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.objectives.next_token import NextToken
from isthmus.parts.connectors.mapping_network import MappingMLP
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler, ResamplerShape
from isthmus.parts.fusion.gated_block import GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama
from isthmus.parts.language.token_rows import TokenRows
from isthmus.parts.vision.vit import ViT

VOCABULARY, WIDTH, PAD = 40, 24, 0
IMAGE, CHUNK_END = VOCABULARY, VOCABULARY + 1


def language_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "gpt2":
        config = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=64)
        network: PreTrainedModel = GPT2LMHeadModel(config)
    else:
        network = build_llama(
            LlamaShape(
                vocabulary=VOCABULARY,
                width=WIDTH,
                num_layers=2,
                num_heads=4,
                num_kv_heads=2,
                ffn=48,
                context=64,
            )
        )
    for weight in network.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.4)
    return network.eval()


def joined(
    family: str = "llama", *, opened: bool = True, with_splice: bool = False, num_markers: int = 1
) -> VisionLanguageModel:
    """A model with cross-attention, and with a spliced prefix of two tokens beside it where asked for."""
    network = language_of(family)
    torch.manual_seed(1)
    vision = ViT(image_size=16, patch=8, shape=TransformerShape(width=16, num_layers=1, num_heads=2))
    shape = GatedShape(num_heads=2, head_width=4, ffn_multiple=2)
    fusion = GatedCrossAttention(
        network=network, every=1, placement="first", width=WIDTH, context_width=16, shape=shape
    )
    resampler = PerceiverResampler(
        vision_width=16,
        language_width=16,
        shape=ResamplerShape(num_latents=3, num_layers=1, num_heads=2, head_width=4),
    )
    if opened:
        for parameter in fusion.parameters():
            nn.init.normal_(parameter, std=0.5)
    has_rows = not with_splice and num_markers == 1
    rows = TokenRows(network=network, num_rows=2) if has_rows else None
    if rows is not None:
        nn.init.normal_(rows.table, std=0.4)
    return VisionLanguageModel(
        vision=vision,
        connector=MappingMLP(vision_width=16, language_width=WIDTH, num_prefix=2) if with_splice else None,
        language=LanguageModel(network=network, rows=rows),
        placeholder_id=IMAGE,
        attention=AttentionPath(
            connector=resampler,
            fusion=fusion,
            name="resampler",
            spliced_name="mapper",
            num_markers=0 if with_splice else num_markers,
        ),
    ).eval()


def batch_of(
    rows: list[list[int]], *, places: int = 1, images: int | None = None, left: bool = False
) -> Batch:
    longest = max(len(row) for row in rows)
    token_ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        token_ids[index, place] = torch.tensor(row)
        mask[index, place] = True
    per_row = tuple(row.count(IMAGE) // places if places else 1 for row in rows)
    number = sum(per_row) if images is None else images
    pixels = torch.randn(number, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return Batch(
        sample_ids=tuple(map(str, range(len(rows)))),
        pixels=pixels if number else None,
        token_ids=token_ids,
        attention_mask=mask,
        layout=VisualLayout(images_per_row=per_row, tokens_per_image=(places,) * sum(per_row)),
    )


ROWS = [[1, 5, IMAGE, 7, 8, CHUNK_END, IMAGE, 9, 4], [1, IMAGE, 3, 6]]
SPLICED = [[1, 5, IMAGE, IMAGE, 7, 8], [1, IMAGE, IMAGE, 3]]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_shut_gates_give_the_plain_language_model(family: str) -> None:
    """With markers, with a spliced prefix, and with neither: bit for bit."""
    for with_splice, num_markers, rows in (
        (False, 1, ROWS),
        (True, 0, SPLICED),
        (False, 0, [[1, 5, 6], [1, 7, 8]]),
    ):
        model = joined(family, opened=False, with_splice=with_splice, num_markers=num_markers)
        batch = batch_of(rows, places=2 if with_splice else num_markers)
        plain = language_of(family)
        positions = (batch.attention_mask.long().cumsum(1) - 1).clamp(min=0)
        expected = plain(
            inputs_embeds=model.embed(batch),
            attention_mask=batch.attention_mask.long(),
            position_ids=positions,
        ).logits
        assert torch.equal(model.logits(batch)[..., :VOCABULARY], expected)


@pytest.mark.parametrize("with_splice", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_left_and_right_padding_give_the_same_logits(family: str, with_splice: bool) -> None:
    """Largest difference measured: 1e-6."""
    model = joined(family, with_splice=with_splice)
    rows, places = (SPLICED, 2) if with_splice else (ROWS, 1)
    right, left = (model.logits(batch_of(rows, places=places, left=side)) for side in (False, True))
    length = len(rows[1])
    assert (right[1, :length] - left[1, -length:]).abs().max() < 2e-5
    assert (right[0] - left[0]).abs().max() < 2e-5


def test_text_before_the_first_picture_does_not_depend_on_it() -> None:
    model = joined()
    batch = batch_of([[1, 5, IMAGE, 7, 8]])
    assert batch.pixels is not None
    other = Batch(
        sample_ids=batch.sample_ids,
        pixels=batch.pixels + 1,
        token_ids=batch.token_ids,
        attention_mask=batch.attention_mask,
        layout=batch.layout,
    )
    one, two = model.logits(batch), model.logits(other)
    assert torch.equal(one[0, :2], two[0, :2])
    assert (one[0, 2:] - two[0, 2:]).abs().amax(dim=-1).min() > 1e-4


def test_a_text_row_is_as_if_alone() -> None:
    model = joined()
    together = model.logits(batch_of([ROWS[1], [1, 5, 6]]))
    alone = model.logits(batch_of([[1, 5, 6]]))
    assert (together[1, :3] - alone[0]).abs().max() < 2e-5  # 4e-6 measured


def test_both_ways_carry_the_picture() -> None:
    model = joined(with_splice=True)
    batch = batch_of(SPLICED, places=2)
    assert model.num_places(4) == 2
    assert model.num_visual_tokens(4) == 2 + 3
    assert list(model.parts()) == ["vision", "mapper", "resampler", "fusion", "language"]
    with torch.no_grad():
        before = model.logits(batch)
        for part in ("mapper", "resampler"):
            for parameter in model.parts()[part].parameters():
                parameter.add_(0.1)
            after = model.logits(batch)
            assert (before - after).abs().max() > 1e-3
            before = after


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_cached_writing_equals_uncached_and_rows_alone(family: str, method: str) -> None:
    model = joined(family)
    batch = batch_of(ROWS, left=True)
    written = {
        cached: generate(
            model,
            batch,
            Decoding(method=method, beams=3, max_new_tokens=6, use_cache=cached),  # type: ignore[arg-type]
            end_ids=(2,),
            pad_id=PAD,
        )
        for cached in (True, False)
    }
    assert written[True] == written[False]
    assert len(set(map(tuple, written[True]))) == 2
    assert batch.pixels is not None
    alone = Batch(
        sample_ids=("1",),
        pixels=batch.pixels[2:],
        token_ids=torch.tensor([ROWS[1]]),
        attention_mask=torch.ones(1, 4, dtype=torch.bool),
        layout=VisualLayout(images_per_row=(1,), tokens_per_image=(1,)),
    )
    decoding = Decoding(method=method, beams=3, max_new_tokens=6)  # type: ignore[arg-type]
    assert generate(model, alone, decoding, end_ids=(2,), pad_id=PAD) == written[True][1:]


def test_greedy_writing_is_the_likeliest_token_of_a_whole_pass() -> None:
    model = joined()
    row = list(ROWS[1])
    written = generate(model, batch_of([row]), Decoding(max_new_tokens=5), end_ids=(CHUNK_END,), pad_id=PAD)[
        0
    ]
    for token in written:
        logits = model.logits(batch_of([row]))[0, -1]
        logits[IMAGE] = float("-inf")  # markers are never written
        assert int(logits.argmax()) == token
        row.append(token)


def test_the_end_of_a_chunk_is_learnt_and_ends_the_writing_and_a_marker_is_never_written() -> None:
    model = joined()
    assert model.language.rows is not None
    batch = batch_of([ROWS[1]])
    targets = torch.full_like(batch.token_ids, IGNORED)
    targets[0, -1] = CHUNK_END
    supervised = Batch(
        sample_ids=batch.sample_ids,
        pixels=batch.pixels,
        token_ids=batch.token_ids,
        attention_mask=batch.attention_mask,
        layout=batch.layout,
        targets=targets,
    )
    objective = NextToken(model)
    objective(model.encode(supervised), supervised, Progress(step=0, num_steps=1))[
        "next_token"
    ].sum.backward()
    assert model.language.rows.table.grad is not None
    assert bool(model.language.rows.table.grad.any(dim=1).all())
    hidden = model.encode(batch).hidden
    assert hidden is not None
    with torch.no_grad():
        model.language.rows.table[1] = 100 * hidden[0, -1]
        assert generate(model, batch, Decoding(), end_ids=(CHUNK_END,), pad_id=PAD) == [[]]
        model.language.rows.table[0] = 1000 * hidden[0, -1]
        assert generate(model, batch, Decoding(), end_ids=(CHUNK_END,), pad_id=PAD) == [[]]


def test_only_the_named_parts_move() -> None:
    model = joined()
    parts = model.parts()
    assert list(parts) == ["vision", "resampler", "fusion", "language", "token_rows"]
    held = [id(p) for part in ("resampler", "fusion", "token_rows") for p in parts[part].parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in held)
    model.encode(batch_of(ROWS)).hidden.square().sum().backward()  # type: ignore[union-attr]
    moved = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
    assert moved == set(held)


def test_pictures_that_no_row_claims_are_refused() -> None:
    model = joined()
    with pytest.raises(ValueError, match="has 3 pictures but no layout that says which row"):
        model.logits(batch_of(ROWS[1:], images=3))


def test_a_model_needs_a_way_in_and_names_that_differ() -> None:
    model = joined(with_splice=True)
    vision, language = model.vision, model.language
    with pytest.raises(ValueError, match="needs a connector to splice, an attention path, or both"):
        VisionLanguageModel(vision=vision, connector=None, language=language, placeholder_id=IMAGE)
    assert model.attention_connector is not None
    assert model.fusion is not None
    with pytest.raises(ValueError, match="both connectors are called 'connector'"):
        VisionLanguageModel(
            vision=vision,
            connector=model.connector,
            language=language,
            placeholder_id=IMAGE,
            attention=AttentionPath(connector=model.attention_connector, fusion=model.fusion),
        )
