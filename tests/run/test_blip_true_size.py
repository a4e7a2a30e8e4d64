"""BLIP (base) at true size: the published count, without weights and without network."""

import small


def test_blip_base() -> None:
    """What writes is transformers' `BlipForConditionalGeneration`; the encoder's self-attention and the heads come on top."""
    said = small.isthmus("show", "blip", "--json").json
    counts = {row["name"]: row["parameters"] for row in said["parts"]}
    attention, width = 4 * (768 * 768 + 768) + 2 * 768, 768
    assert counts["vision"] + counts["text"] + counts["decoder"] == 223_971_644
    assert counts["encoder"] == 12 * attention
    assert counts["heads"] == 2 * (width * 256 + 256) + (width * 2 + 2) + 1
    assert (
        said["total"]
        == said["published_total"]
        == 223_971_644 + counts["encoder"] + counts["heads"]
        == 252_733_759
    )
    trained = {stage["name"]: stage["trainable"] for stage in said["stages"]}
    apart = {
        "captioner": counts["encoder"] + counts["heads"],
        "filter": counts["decoder"],
        "capfilt": said["total"],
    }
    assert trained == {
        name: said["total"] - apart.get(name, 0)
        for name in ("pretrain", "captioner", "filter", "capfilt", "bootstrapped")
    }
