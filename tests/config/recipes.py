"""A recipe that is right, for tests to spoil."""

GOOD = """\
name: photo-caption
paper: [https://arxiv.org/abs/2304.08485]
data:
  train: {kind: shards, files: "${shared}/train-*.tar"}
  val: {kind: shards, files: "${shared}/val-*.tar"}
model:
  kind: vision_language_model
  vision: {kind: vit, image_size: 64, patch: 8, width: 128, layers: 4, heads: 4}
  connector: {kind: mlp, depth: 2}
  fusion: {kind: splice, placeholder: virtual}
  language:
    kind: llama
    tokenizer: {kind: trained, data: train, vocabulary: 400}
    width: 64
    layers: 2
    heads: 4
    ffn: 172
    context: 128
features: {store: true, dtype: float16}
stages:
  - kind: train
    name: align
    train: [connector]
    objective: {next_token: 1.0}
    data: train
    rows: captions
    epochs: 2
    batch_size: 64
    optimizer: {lr: 1e-3}
    validation: {data: val, every: 200}
  - kind: train
    name: together
    start_from: align
    train: [connector, language]
    objective: {next_token: 1}
    data: train
    rows: captions
    steps: 10
    batch_size: 64
    micro_batch_size: 16
    optimizer: {lr: 2e-5, lr_by_part: {connector: 1e-4}, betas: [0.9, 0.95]}
evaluation: {task: captioning, val: val, test: val}
"""


def spoiled(*changes: tuple[str, str]) -> str:
    """`GOOD` with each left text, which stands in it, replaced by the right one."""
    text = GOOD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    return text


def line_of(words: str) -> int:
    """The line of `GOOD` on which the words first stand, counted from 1."""
    return GOOD[: GOOD.index(words)].count("\n") + 1
