"""A wrong recipe: every mistake is named with its path, what was found, what is allowed, and the line."""

import pytest
from pydantic import ValidationError
from recipes import GOOD, line_of, spoiled

from isthmus.config.base import Settings
from isthmus.config.explain import nearest
from isthmus.config.joining import Reuse, Splice
from isthmus.config.load import parse_recipe
from isthmus.config.model import DualEncoder
from isthmus.config.recipe import Recipe
from isthmus.core.errors import RecipeError

DUAL = """\
model:
  kind: dual_encoder
  vision: {kind: vit, image_size: 64, patch: 8, width: 128, layers: 4, heads: 4}
  image_head: {pooling: mean}
  text: {kind: transformer, tokenizer: {kind: trained, data: train, vocabulary: 400}, width: 64, layers: 2, heads: 4, context: 32}
  embed_dim: 64
"""


KINDS = (
    "linear, mlp, pixel_shuffle, perceiver_resampler, latent_transformer, pooled_mlp, mapping_mlp, mapping_transformer, "
    "frame_transformer, qformer"
)


def refusal(text: str, *overrides: str) -> list[str]:
    """The lines of the message."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "bad.yaml", overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ("kind: mlp", "kind: mpl", "kind: mlp",
         "model.connector.kind: found 'mpl', allowed: " + KINDS + "; did you mean 'mlp'?"),
        ("kind: mlp, ", "", "kind: mlp",
         "model.connector.kind: found nothing, allowed: " + KINDS),
        ("depth: 2", "detph: 2", "kind: mlp",
         "model.connector.detph: found the unknown key 'detph', allowed: kind, depth, hidden, pool, norm, positions, dropout; "
         "did you mean 'depth'?"),
        ("epochs: 2", 'epochs: "2"', "epochs: 2", "stages.0.epochs: found the text '2', allowed: a whole number"),
        ("epochs: 2", "epochs: 2.5", "epochs: 2", "stages.0.epochs: found 2.5, allowed: a whole number"),
        ("store: true", "store: on", "store: true", "features.store: found the text 'on', allowed: true or false"),
        ("lr: 1e-3", "lr: -1", "lr: 1e-3", "stages.0.optimizer.lr: found -1, allowed: a number at least 0"),
        ("lr: 1e-3", "lr: .nan", "lr: 1e-3", "stages.0.optimizer.lr: found NaN, allowed: a finite number"),
        ("lr: 1e-3", "", "optimizer: {lr: 1e-3}",
         "stages.0.optimizer.lr: found nothing, allowed: a number, it has no default"),
        ("    data: train\n", "", "- kind: train", "stages.0.data: found nothing, allowed: text, it has no default"),
        ("rows: captions", "rows: caption", "rows: captions",
         "stages.0.rows: found 'caption', allowed: captions, questions, conversations, text, text_answers, regions, pictures, classes; did you mean 'captions'?"),
        ("next_token: 1.0", "next_tokn: 1.0", "objective: {next_token: 1.0}",
         "stages.0.objective.next_tokn: found 'next_tokn', allowed: next_token, contrastive, sigmoid, masked_pixels, masked_tokens, reconstruction, uniform_codes, even_codes, classification, matching, captioning; did you mean 'next_token'?"),
        ("train: [connector]", "train: []", "train: [connector]",
         "stages.0.train: found [], allowed: at least 1 of them"),
        ("train: [connector]", "train: connector", "train: [connector]",
         "stages.0.train: found the text 'connector', allowed: a list"),
        ("train: [connector]", "freeze: [token_embedings]\n    train: [connector]", "train: [connector]",
         "stages.0.freeze.0: found 'token_embedings', allowed: what lies inside parts of this vision_language_model: token_embeddings; "
         "did you mean 'token_embeddings'?"),
        ("train: [connector]", "freeze: [token_embeddings]\n    train: [connector]", "train: [connector]",
         "stages.0.freeze.0: found 'token_embeddings', allowed: nothing, because this stage does not train language at all"),
        ("placeholder: virtual", "placeholder: virtul", "fusion:",
         "model.fusion.placeholder: found 'virtul', allowed: virtual, add, {reuse: ID}; did you mean 'virtual'?"),
        ("placeholder: virtual", "placeholder: {reuse: -1}", "fusion:",
         "model.fusion.placeholder: found {'reuse': -1}, allowed: virtual, add, {reuse: ID}"),
        ("name: photo-caption", "name: Photo caption", "name: photo",
         "name: found 'Photo caption', allowed: text of the form ^[a-z0-9][a-z0-9._-]*$"),
        ("patch: 8", "patch: 7", "vision:", "model.vision.patch: found 7, allowed: a number that divides image_size = 64"),
        ("heads: 4}", "heads: 3}", "vision:", "model.vision.heads: found 3, allowed: a number that divides width = 128"),
        ("heads: 4}", "heads: 4, layer: 5, final_norm: false}", "vision:",
         "model.vision.layer: found 5, allowed: a layer from -5 to 4, or null"),
        ("heads: 4}", "heads: 4, layer: -2}", "vision:",
         "model.vision.final_norm: found true, allowed: false, because the normalisation belongs to the last layer and layer is -2"),
        ("    heads: 4\n", "    heads: 7\n", "    heads: 4\n",
         "model.language.heads: found 7, allowed: a number that divides width = 64"),
        ("    heads: 4\n", "    heads: 4\n    kv_heads: 3\n", "    ffn: 172",
         "model.language.kv_heads: found 3, allowed: a number that divides heads = 4"),
        ("    steps: 10\n", "", "- kind: train\n    name: together",
         "stages.1.steps: found neither epochs nor steps, allowed: exactly one of epochs and steps"),
        ("    steps: 10\n", "    steps: 10\n    epochs: 1\n", "    steps: 10\n",
         "stages.1.steps: found both epochs and steps, allowed: exactly one of epochs and steps"),
        ("micro_batch_size: 16", "micro_batch_size: 15", "micro_batch_size: 16",
         "stages.1.micro_batch_size: found 15, allowed: a number that divides batch_size = 64"),
        ("{connector: 1e-4}", "{conector: 1e-4}", "optimizer: {lr: 2e-5",
         "stages.1.optimizer.lr_by_part.conector: found 'conector', allowed: parts this stage trains: connector, language; "
         "did you mean 'connector'?"),
        ("train: [connector]", "train: [conector]", "train: [connector]",
         "stages.0.train.0: found 'conector', allowed: parts of this vision_language_model: vision, connector, language; "
         "did you mean 'connector'?"),
        ("train: [connector]", "train: [lora]", "train: [connector]",
         "stages.0.train.0: found 'lora', allowed: parts of this vision_language_model: vision, connector, language; "
         "lora needs model.language.lora"),
        ("train: [connector]", "train: [connector, vision]", "train: [connector]",
         "stages.0.train: found 'vision', allowed: frozen vision only, because features.store is true; "
         "set features: null to train vision"),
        ("start_from: align", "start_from: aling", "start_from: align",
         "stages.1.start_from: found 'aling', allowed: an earlier stage (align) or a run directory written with a '/'; "
         "did you mean 'align'?"),
        ("start_from: align", "start_from: together", "start_from: align",
         "stages.1.start_from: found 'together', allowed: an earlier stage (align) or a run directory written with a '/'"),
        ("name: together", "name: align", "name: together",
         "stages.1.name: found 'align' again, allowed: a name no other stage has"),
        ("validation: {data: val", "validation: {data: vla", "validation: {data: val",
         "stages.0.validation.data: found 'vla', allowed: a name under data: train, val; did you mean 'val'?"),
        ("data: train, vocabulary", "data: texts, vocabulary", "tokenizer:",
         "model.language.tokenizer.data: found 'texts', allowed: a name under data: train, val"),
        ("task: captioning", "task: retrieval", "evaluation:",
         "evaluation.task: found 'retrieval', allowed: captioning, questions (model.kind is vision_language_model)"),
        ("next_token: 1.0", "contrastive: 1.0", "objective: {next_token: 1.0}",
         "stages.0.objective.contrastive: found 'contrastive', allowed: next_token (model.kind is vision_language_model)"),
    ],
)  # fmt: skip
def test_a_mistake_names_path_found_allowed_nearest_and_line(
    before: str, after: str, line: str, says: str
) -> None:
    head, only = refusal(spoiled((before, after)))
    assert head == "bad.yaml has 1 mistake:"
    assert only == f"  line {line_of(line)}: {says}"


def test_all_mistakes_are_listed_at_once() -> None:
    text = spoiled(
        ("kind: mlp", "kind: mpl"), ("epochs: 2", "epochs: 0"), ("dtype: float16", "dtype: float61")
    )
    lines = refusal(text)
    assert lines[0] == "bad.yaml has 3 mistakes:"
    assert [line.split(": ")[1] for line in lines[1:]] == [
        "model.connector.kind",
        "features.dtype",
        "stages.0.epochs",
    ]


def test_blocks_that_do_not_fit_are_all_listed_at_once() -> None:
    lines = refusal(
        spoiled(("validation: {data: val", "validation: {data: vla"), ("task: captioning", "task: retrieval"))
    )
    assert len(lines) == 3


def test_a_mistake_of_an_override_names_the_override() -> None:
    lines = refusal(GOOD, "stages.align.optimizer.schedule=cosin")
    assert lines[1] == (
        "  override stages.align.optimizer.schedule=cosin: stages.0.optimizer.schedule: found 'cosin', "
        "allowed: cosine, linear, constant; did you mean 'cosine'?"
    )


def test_a_dual_encoder_learns_captions_by_contrast_and_is_judged_by_retrieval() -> None:
    start, end = GOOD.index("model:"), GOOD.index("features:")
    text = GOOD[:start] + DUAL + GOOD[end:]
    text = text.replace("connector, language", "image_head, text, scale").replace("connector", "image_head")
    right = text.replace("next_token", "contrastive").replace("captioning", "retrieval")
    assert parse_recipe(right, "dual.yaml").model.part_names == ("vision", "image_head", "text", "scale")
    paths = [line.split(": ")[1] for line in refusal(text)[1:]]
    assert paths == ["stages.0.objective.next_token", "stages.1.objective.next_token", "evaluation.task"]


def test_the_sigmoid_loss_has_a_bias_and_no_smoothing() -> None:
    start, end = GOOD.index("model:"), GOOD.index("features:")
    text = GOOD[:start] + DUAL + GOOD[end:]
    text = text.replace("connector, language", "image_head, text, scale").replace("connector", "image_head")
    text = text.replace("captioning", "retrieval").replace("next_token", "sigmoid")
    biased = parse_recipe(text, "dual.yaml", overrides=["model.bias_init=-10.0"])
    assert isinstance(biased.model, DualEncoder)
    assert biased.model.bias_init == -10.0
    smooth = refusal(text, "stages.0.label_smoothing=0.1")
    assert "label_smoothing: found 0.1, allowed: 0.0, because sigmoid judges each pair alone" in smooth[1]
    idle = refusal(text.replace("sigmoid", "contrastive"), "model.bias_init=-10.0")
    assert "objective: found contrastive, allowed: sigmoid among them" in idle[1]


def test_every_setting_of_the_schema_is_closed_and_frozen() -> None:
    blocks = [Recipe, *Settings.__subclasses__()]
    assert len(blocks) > 20
    for block in blocks:
        assert block.model_config.get("extra") == "forbid"
        assert block.model_config.get("frozen") is True


def test_a_placeholder_may_reuse_an_id_in_python_too() -> None:
    assert Splice(placeholder=Reuse(reuse=3)) == Splice.model_validate(
        {"kind": "splice", "placeholder": {"reuse": 3}}
    )
    with pytest.raises(ValidationError, match="virtual, add"):
        Splice.model_validate({"placeholder": {"reuse": True}})


def test_the_nearest_word_is_offered_only_when_it_is_near() -> None:
    assert nearest("Captoins", ("captions", "questions")) == "captions"
    assert nearest("zzz", ("captions", "questions")) is None
