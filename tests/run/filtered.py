"""A recipe of CapFilt that trains in seconds: a small BLIP pretrains, writes, filters, and a new one learns from the result."""

from pathlib import Path

import small
from PIL import Image

from isthmus.data.sources.scenes import SceneSource

BOTH = "{contrastive: 1.0, matching: 1.0}"
ALL = "{contrastive: 1.0, matching: 1.0, captioning: 1.0}"
MED = (
    f"kind: med, vision: {small.VISION}, pool: mean, embed_dim: 8, text: {{tokenizer: {{kind: trained, data: train, "
    "algorithm: word, vocabulary: 200}, context: 24, positions: 24, width: 16, layers: 1, heads: 2, ffn: 24, dropout: 0.0}"
)
MODELS = f"models:\n  first: {{{MED}}}\n  student: {{{MED}}}\n"
LEARNT = (
    small.stage("pretrain", "text, encoder, decoder, heads", "captions", objective=ALL, model="first")
    + small.stage(
        "captioner",
        "text, decoder",
        "captions",
        objective="{captioning: 1.0}",
        model="first",
        start_from="pretrain",
    )
    + small.stage(
        "filter", "text, encoder, heads", "captions", objective=BOTH, model="first", start_from="pretrain"
    )
)
CAPFILT = "captioner: captioner, filter: filter, data: train, makes: pairs, max_tokens: 6, block_size: 16, threshold: 0.32"
STUDENT = small.stage(
    "bootstrapped", "text, encoder, decoder, heads", "captions", objective=ALL, model="student", data="pairs"
)


def recipe(capfilt: str = CAPFILT, *, learnt: str = LEARNT, student: str = STUDENT) -> str:
    """The whole recipe, or one with other stages."""
    stages = f"{learnt}  - {{kind: capfilt, name: capfilt, {capfilt}}}\n{student}"
    return (
        f"name: small-capfilt\nseed: 3\n{small.DATA}{MODELS}stages:\n{stages}"
        "evaluation: {task: retrieval, val: val, test: test}\n"
    )


def photos(folder: Path, num: int = 10) -> Path:
    """A folder of pictures with a table of two captions each; one caption is empty, one is there twice, one picture is broken."""
    folder.mkdir()
    scenes = SceneSource(split="test", num_samples=num, image_size=32)
    rows = ["image,caption"]
    for index in range(num):
        sample = scenes.sample(index)
        name = f"{index}.png"
        sample.images[0].picture().save(folder / name)
        rows += [f"{name},{sample.captions[0]}", f"{name},{scenes.sample((index + 3) % num).captions[0]}"]
    rows += ["1.png,-", f"2.png,{scenes.sample(2).captions[0].upper()}"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "4.png").write_bytes(b"no picture")
    Image.new("RGB", (32, 32)).save(folder / "unused.png")
    return folder
