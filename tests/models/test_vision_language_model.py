"""The joined model: splicing, padding, text-only rows, agreement of processor and connector, and transformers' own loss."""

import pytest
import torch
from torch import Tensor

from isthmus.core.batch import IGNORED, Batch, VisualLayout
from isthmus.core.protocols import Progress, TrainableModel
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.objectives.next_token import NextToken
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.fusion.splice import splice
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama
from isthmus.parts.language.lora import LoraSettings, add_lora
from isthmus.parts.vision.vit import ViT

IMAGE = 50
NOW = Progress(step=0, num_steps=1)


def small_model() -> VisionLanguageModel:
    torch.manual_seed(0)
    vision = ViT(image_size=16, patch=8, shape=TransformerShape(width=16, num_layers=1, num_heads=2))
    shape = LlamaShape(vocabulary=50, width=24, num_layers=2, num_heads=4, num_kv_heads=2, ffn=48, context=64)
    network = build_llama(shape)
    return VisionLanguageModel(
        vision=vision,
        connector=MLPConnector(vision_width=16, language_width=24),
        language=LanguageModel(network=network),
        placeholder_id=IMAGE,
    ).eval()


def batch_of(
    rows: list[list[int]], images: Tensor | None, *, left: bool = False, supervise: int = 0
) -> Batch:
    longest = max(len(row) for row in rows)
    token_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    targets = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        token_ids[index, place] = torch.tensor(row)
        mask[index, place] = True
        if supervise:
            end = longest if left else len(row)
            targets[index, end - supervise : end] = torch.tensor(row[-supervise:])
    per_row = tuple(row.count(IMAGE) // 4 for row in rows)
    layout = VisualLayout(images_per_row=per_row, tokens_per_image=(4,) * sum(per_row))
    names = tuple(str(index) for index in range(len(rows)))
    return Batch(
        sample_ids=names,
        pixels=images,
        token_ids=token_ids,
        attention_mask=mask,
        targets=targets,
        layout=layout,
    )


def test_visual_tokens_stand_where_the_placeholders_stood() -> None:
    model = small_model()
    pixels = torch.randn(3, 3, 16, 16)
    rows = [[1, *[IMAGE] * 4, 7, 8, *[IMAGE] * 4, 9], [1, 5, *[IMAGE] * 4]]
    embedded = model.embed(batch_of(rows, pixels))
    visual = model.connector(model.vision(pixels))

    def words(*ids: int) -> Tensor:
        return model.language.embed(torch.tensor([ids]))[0]

    assert torch.equal(embedded[0], torch.cat([words(1), visual[0], words(7, 8), visual[1], words(9)]))
    assert torch.equal(embedded[1, :6], torch.cat([words(1, 5), visual[2]]))


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_left_and_right_padding_give_the_same_logits(order: list[int]) -> None:
    model = small_model()
    pixels = torch.randn(2, 3, 16, 16)[order]
    rows = [[1, *[IMAGE] * 4, 7, 8, 9, 4], [1, *[IMAGE] * 4, 3]]
    right, left = (
        model.logits(batch_of([rows[i] for i in order], pixels, left=side)) for side in (False, True)
    )
    short = order.index(1)
    assert (right[short, :6] - left[short, -6:]).abs().max() < 2e-6
    assert (right[1 - short] - left[1 - short]).abs().max() < 2e-6


def test_a_text_row_in_an_image_batch_is_as_if_alone() -> None:
    model = small_model()
    together = model.logits(batch_of([[1, *[IMAGE] * 4, 7], [1, 5, 6]], torch.randn(1, 3, 16, 16)))
    alone = model.logits(batch_of([[1, 5, 6]], None))
    assert (together[1, :3] - alone[0]).abs().max() < 2e-6


def test_another_picture_changes_the_answer_only_after_it() -> None:
    model = small_model()
    rows = [[1, 5, *[IMAGE] * 4, 7, 8]]
    one, other = (model.logits(batch_of(rows, torch.randn(1, 3, 16, 16))) for _ in range(2))
    assert torch.equal(one[0, :2], other[0, :2])
    assert (one[0, 5:] - other[0, 5:]).abs().amax(dim=-1).min() > 1e-4


def test_too_few_visual_tokens_are_refused_with_both_numbers() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="3 image placeholders but their images give 4 visual tokens"):
        model.embed(batch_of([[1, *[IMAGE] * 3, 7]], torch.randn(1, 3, 16, 16)))
    with pytest.raises(ValueError, match="4 image placeholders but their images give 0"):
        model.embed(batch_of([[1, *[IMAGE] * 4, 7]], None))
    wrong = batch_of([[1, *[IMAGE] * 4]], torch.randn(1, 3, 16, 16))
    planned = VisualLayout(images_per_row=(1,), tokens_per_image=(5,))
    with pytest.raises(
        ValueError, match=r"planned \[5\] visual tokens an image, but the connector gives \[4\]"
    ):
        model.embed(Batch(sample_ids=("a",), pixels=wrong.pixels, token_ids=wrong.token_ids, layout=planned))


def test_loss_on_text_equals_transformers_own() -> None:
    model = small_model()
    batch = batch_of([[1, 5, 6, 7, 8], [1, 9, 4]], None, supervise=2)
    term = NextToken(model)(model.encode(batch), batch, NOW)["next_token"]
    theirs = model.language.network(
        input_ids=batch.token_ids, attention_mask=batch.attention_mask.long(), labels=batch.targets
    ).loss
    assert term.sum.item() / term.count == pytest.approx(theirs.item(), abs=1e-6)
    assert term.count == 4


def test_stored_features_stand_in_for_pixels() -> None:
    model = small_model()
    live = batch_of([[1, *[IMAGE] * 4, 7]], torch.randn(1, 3, 16, 16))
    for parameter in model.vision.parameters():
        parameter.requires_grad_(requires_grad=False)
    features = model.vision(live.pixels)
    stored = Batch(
        sample_ids=live.sample_ids,
        features=features,
        token_ids=live.token_ids,
        attention_mask=live.attention_mask,
        layout=live.layout,
    )
    assert torch.equal(model.logits(stored), model.logits(live))


def test_lora_changes_nothing_at_the_start_and_is_a_part_of_its_own() -> None:
    plain = small_model()
    batch = batch_of([[1, *[IMAGE] * 4, 7]], torch.randn(1, 3, 16, 16))
    before = plain.logits(batch)
    update = add_lora(plain.language.network, LoraSettings(rank=2, alpha=4, targets=("q_proj", "v_proj")))
    updated = VisionLanguageModel(
        vision=plain.vision,
        connector=plain.connector,
        language=plain.language,
        placeholder_id=IMAGE,
        lora=update,
    ).eval()
    assert torch.equal(before, updated.logits(batch))
    assert isinstance(updated, TrainableModel)
    lora = {id(p) for p in updated.parts()["lora"].parameters()}
    assert lora < {id(p) for p in updated.parts()["language"].parameters()}
    assert sum(p.numel() for p in updated.parts()["lora"].parameters()) == 2 * (2 * (24 + 24) + 2 * (24 + 12))


def test_a_lora_target_that_matches_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"q_projj match no linear layer; this model has .*q_proj"):
        add_lora(small_model().language.network, LoraSettings(rank=2, alpha=4, targets=("q_projj",)))


def test_splice_takes_visual_tokens_in_reading_order() -> None:
    text = torch.zeros(2, 3, 2)
    places = torch.tensor([[False, True, True], [True, False, False]])
    visual = torch.arange(6.0).reshape(3, 2)
    filled = splice(text=text, places=places, visual=visual)
    assert filled[places].tolist() == visual.tolist()
    assert filled[~places].abs().sum() == 0
