"""Decoding: the cache changes nothing, batches change nothing, greedy is beam search with one beam, the end token ends."""

import pytest
import torch

from isthmus.core.batch import Batch, VisualLayout
from isthmus.generation.decode import Decoding, generate
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama
from isthmus.parts.language.token_rows import TokenRows
from isthmus.parts.vision.vit import ViT

IMAGE, PAD, END = 40, 0, 2


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(1)
    vision = ViT(image_size=16, patch=8, shape=TransformerShape(width=16, num_layers=1, num_heads=2))
    network = build_llama(
        LlamaShape(vocabulary=40, width=24, num_layers=2, num_heads=4, num_kv_heads=2, ffn=48, context=64)
    )
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.6)
    return VisionLanguageModel(
        vision=vision,
        connector=MLPConnector(vision_width=16, language_width=24),
        language=LanguageModel(network=network),
        placeholder_id=IMAGE,
    ).eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    rows = [[1, *[IMAGE] * 4, 7, 9, 11], [1, *[IMAGE] * 4, 5]]
    token_ids = torch.tensor([rows[0], [PAD, PAD, *rows[1]]])
    mask = token_ids != PAD
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layout = VisualLayout(images_per_row=(1, 1), tokens_per_image=(4, 4))
    return Batch(
        sample_ids=("a", "b"), pixels=pixels, token_ids=token_ids, attention_mask=mask, layout=layout
    )


def row(batch: Batch, index: int) -> Batch:
    assert batch.pixels is not None
    assert batch.token_ids is not None
    assert batch.attention_mask is not None
    keep = batch.attention_mask[index]
    return Batch(
        sample_ids=(batch.sample_ids[index],),
        pixels=batch.pixels[index : index + 1],
        token_ids=batch.token_ids[index : index + 1, keep],
        attention_mask=keep[keep].unsqueeze(0),
        layout=VisualLayout(images_per_row=(1,), tokens_per_image=(4,)),
    )


def written(
    model: VisionLanguageModel, batch: Batch, decoding: Decoding, end: int = END, seed: int = 0
) -> list[list[int]]:
    return generate(model, batch, decoding, end_ids=(end,), pad_id=PAD, seed=seed)


METHODS = [
    Decoding(method="greedy", max_new_tokens=9),
    Decoding(method="beam", beams=3, max_new_tokens=9),
    Decoding(method="sample", temperature=0.7, top_p=0.9, max_new_tokens=9),
]


@pytest.mark.parametrize("decoding", METHODS, ids=lambda decoding: decoding.method)
def test_the_cache_changes_no_token(model: VisionLanguageModel, batch: Batch, decoding: Decoding) -> None:
    without = Decoding(**{**vars(decoding), "use_cache": False})
    assert written(model, batch, decoding) == written(model, batch, without)


@pytest.mark.parametrize("decoding", METHODS[:2], ids=lambda decoding: decoding.method)
def test_a_batch_writes_what_its_rows_write_alone(
    model: VisionLanguageModel, batch: Batch, decoding: Decoding
) -> None:
    alone = [written(model, row(batch, index), decoding)[0] for index in range(2)]
    assert written(model, batch, decoding) == alone


def test_greedy_is_the_likeliest_next_token_again_and_again(model: VisionLanguageModel, batch: Batch) -> None:
    one = row(batch, 0)
    assert one.token_ids is not None
    ids = one.token_ids
    expected: list[int] = []
    for _ in range(9):
        grown = Batch(
            sample_ids=("a",),
            pixels=one.pixels,
            token_ids=ids,
            attention_mask=torch.ones_like(ids, dtype=torch.bool),
            layout=one.layout,
        )
        expected.append(int(model.logits(grown)[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[expected[-1]]])], dim=1)
    assert END not in expected, "the fixture must not end early, or the comparison is weak"
    assert len(set(expected)) > 2
    assert written(model, one, METHODS[0])[0] == expected
    assert written(model, one, Decoding(method="beam", beams=1, max_new_tokens=9))[0] == expected


def test_the_end_token_ends_and_is_not_returned(model: VisionLanguageModel, batch: Batch) -> None:
    free = written(model, batch, METHODS[0])
    stopped = written(model, batch, METHODS[0], end=free[0][3])
    assert stopped[0] == free[0][: free[0].index(free[0][3])]


def test_rows_of_a_batch_end_by_a_new_token_while_others_go_on() -> None:
    """The end token's id lies behind the frozen table, and is fed to it as long as another row still writes."""
    torch.manual_seed(3)
    network = build_llama(
        LlamaShape(vocabulary=40, width=24, num_layers=1, num_heads=4, num_kv_heads=2, ffn=48, context=64)
    )
    end, image, num_rows = 40, 41, 48
    model = VisionLanguageModel(
        vision=ViT(image_size=16, patch=8, shape=TransformerShape(width=16, num_layers=1, num_heads=2)),
        connector=MLPConnector(vision_width=16, language_width=24),
        language=LanguageModel(network=network, rows=TokenRows(network=network, num_rows=1)),
        placeholder_id=image,
    ).eval()
    token_ids = torch.tensor([[1, *[image] * 4, 7]]).repeat(num_rows, 1)
    batch = Batch(
        sample_ids=tuple(map(str, range(num_rows))),
        pixels=torch.zeros(num_rows, 3, 16, 16),
        token_ids=token_ids,
        attention_mask=torch.ones_like(token_ids, dtype=torch.bool),
        layout=VisualLayout(images_per_row=(1,) * num_rows, tokens_per_image=(4,) * num_rows),
    )
    drawing = Decoding(method="sample", temperature=50.0, max_new_tokens=12)
    lengths = {len(ids) for ids in generate(model, batch, drawing, end_ids=(end,), pad_id=PAD)}
    assert min(lengths) < 12
    assert max(lengths) == 12


def test_drawing_follows_its_seed_and_leaves_the_global_generator_alone(
    model: VisionLanguageModel, batch: Batch
) -> None:
    before = torch.get_rng_state()
    draws = [written(model, batch, METHODS[2], seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(before, torch.get_rng_state())
