"""The Q-Former: published counts, its three masks by brute force, and one joint pass against its shorter ways."""

import pytest
import torch
from torch import Tensor, nn

from isthmus.parts.connectors.qformer import QFormer, QFormerText
from isthmus.parts.connectors.qformer_layers import QFormerShape
from isthmus.parts.connectors.qformer_masks import full, multimodal_causal, unimodal

SMALL = QFormerShape(num_queries=3, width=16, num_layers=3, num_heads=2, ffn=24, dropout=0.0)
NUM_QUERIES, NUM_WORDS = 3, 5


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(seed: int = 0) -> QFormer:
    torch.manual_seed(seed)
    text = QFormerText(vocabulary=30, context=8, shape=SMALL)
    return QFormer(vision_width=10, language_width=None, shape=SMALL, text=text).eval()


def inputs(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, token ids, and a mask in which the second text ends two words earlier."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(rows, 4, 10, generator=generator)
    token_ids = torch.randint(0, 30, (rows, NUM_WORDS), generator=generator)
    there = torch.ones(rows, NUM_WORDS, dtype=torch.bool)
    there[1, -2:] = False
    return patches, token_ids, there


def test_published_parameter_counts() -> None:
    """Queries, layers without and with words, embeddings, projections, and all of the connector of BLIP-2 OPT-2.7B."""
    shape = QFormerShape()
    with torch.device("meta"):
        connector = QFormer(vision_width=1408, language_width=2560, shape=shape)
        text = QFormerText(vocabulary=30_523, context=512, shape=shape)
        plain = QFormerText(vocabulary=30_522, context=512, shape=shape)
    assert connector.queries.numel() == 24_576
    assert count(connector.layers) == 105_137_664
    assert count(connector.layers) + count(text.ffns) == 161_825_280
    assert count(plain.words) + count(plain.positions) == 23_834_112
    assert count(text.words) + count(text.positions) == 23_834_880
    assert count(connector) == 107_133_696


@pytest.mark.parametrize(("width", "published"), [(2560, 1_968_640), (4096, 3_149_824), (2048, 1_574_912)])
def test_projections_to_published_language_models(width: int, published: int) -> None:
    with torch.device("meta"):
        connector = QFormer(vision_width=1408, language_width=width, shape=QFormerShape())
    assert connector.projection is not None
    assert count(connector.projection) == published


def test_queries_read_the_picture_in_every_second_layer() -> None:
    with torch.device("meta"):
        connector = QFormer(vision_width=1408, language_width=None, shape=QFormerShape())
    reading = [at for at, layer in enumerate(connector.layers.layers) if layer.cross_attention is not None]
    assert reading == [0, 2, 4, 6, 8, 10]


def allowed_by_rule(name: str, reader: int, read: int, length: int) -> bool:
    """Figure 2 of the paper, written out for one pair of positions; queries stand first."""
    if read >= NUM_QUERIES + length:
        return False
    if name == "full":
        return True
    reader_is_query, read_is_query = reader < NUM_QUERIES, read < NUM_QUERIES
    if name == "unimodal":
        return reader_is_query == read_is_query
    return read_is_query or (not reader_is_query and read <= reader)


MASKS = {"unimodal": unimodal, "full": full, "multimodal_causal": multimodal_causal}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_what_the_figure_shows(name: str) -> None:
    _, _, there = inputs()
    mask = MASKS[name](NUM_QUERIES, there)
    for row, length in enumerate((5, 3)):
        for reader in range(NUM_QUERIES + NUM_WORDS):
            for read in range(NUM_QUERIES + NUM_WORDS):
                assert bool(mask[row, reader, read]) == allowed_by_rule(name, reader, read, length)


@pytest.mark.parametrize("name", MASKS)
def test_what_leaves_depends_on_what_the_mask_allows_and_on_nothing_else(name: str) -> None:
    """Each word, and the picture, is changed in turn: an output moves where a chain of allowed reading leads to it."""
    connector = small()
    patches, token_ids, there = inputs()
    mask = MASKS[name](NUM_QUERIES, there)
    before = connector.join(patches, token_ids, mask)
    reach = torch.linalg.matrix_power(mask[0].float() + torch.eye(NUM_QUERIES + NUM_WORDS), 3) > 0
    for word in range(NUM_WORDS):
        changed = token_ids.clone()
        changed[:, word] = (changed[:, word] + 1) % 30
        moved = (connector.join(patches, changed, mask) - before).abs().amax(dim=2)[0] > 1e-6
        assert moved.tolist() == reach[:, NUM_QUERIES + word].tolist()
    moved = (connector.join(patches.flip(2), token_ids, mask) - before).abs().amax(dim=2)[0] > 1e-6
    assert moved.tolist() == reach[:, :NUM_QUERIES].any(dim=1).tolist()


def test_the_short_ways_equal_joint_passes_under_their_masks() -> None:
    """Measured in float32: equal bits, words of the causal pass within 5e-7 of numbers up to 2; the bound is 2e-6."""
    connector = small()
    patches, token_ids, there = inputs()
    summary = connector.summarise(patches)
    alone = connector.join(patches, token_ids, unimodal(NUM_QUERIES, there))
    causal = connector.join(patches, token_ids, multimodal_causal(NUM_QUERIES, there))
    written = connector.write(token_ids, there, summary.memory)
    torch.testing.assert_close(alone[:, :NUM_QUERIES], summary.queries, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        alone[:, NUM_QUERIES:][there], connector.read(token_ids, there)[there], rtol=0, atol=2e-6
    )
    torch.testing.assert_close(causal[:, :NUM_QUERIES], summary.queries, rtol=0, atol=2e-6)
    torch.testing.assert_close(causal[:, NUM_QUERIES:][there], written[there], rtol=0, atol=2e-6)
    together = connector.join(patches, token_ids, full(NUM_QUERIES, there))
    assert (together[:, :NUM_QUERIES] - summary.queries).abs().max() > 1e-2


@pytest.mark.parametrize("num_patches", [1, 7, 300])
def test_any_picture_gives_as_many_tokens_as_there_are_queries(num_patches: int) -> None:
    connector = QFormer(vision_width=10, language_width=6, shape=SMALL)
    assert connector.num_tokens(num_patches) == 3
    assert connector(torch.randn(2, num_patches, 10)).shape == (2, 3, 6)


def test_a_text_that_is_too_long_or_not_wanted_is_refused() -> None:
    patches, token_ids, there = inputs()
    with pytest.raises(ValueError, match="the text has 10 tokens, but there are 8 positions"):
        small().read(token_ids.repeat(1, 2), there.repeat(1, 2))
    with pytest.raises(ValueError, match="no text branch"):
        QFormer(vision_width=10, language_width=6, shape=SMALL).read(token_ids, there)
    del patches
