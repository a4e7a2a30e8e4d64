"""A stage with a chat template of its own: its rows have it; judging, asking and what the run keeps have the model's."""

import json
from pathlib import Path

import pytest
import small

import isthmus
from isthmus.build.workshop import Workshop
from isthmus.config.load import load_recipe
from isthmus.core.batch import IGNORED
from isthmus.data.rows import RowKind
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.segments import rendered_text
from isthmus.data.templates import ChatTemplate

# Bytes, because a tokenizer of words has no token for the newline that ends a caption.
BYTES = small.OWN.replace("algorithm: word, vocabulary: 200", "algorithm: bpe, vocabulary: 400").replace(
    "context: 64", "context: 500, template: vicuna_v1"
)
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


def recipe_text(template: str | None = "llava_plain") -> str:
    own = {} if template is None else {"template": template}
    align = small.stage("align", "connector", "captions", validation=small.VALIDATION, **own)
    instruct = small.stage("instruct", "connector, language", "questions", validation=small.VALIDATION)
    return small.vision_language(BYTES, stages=align + instruct)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("templates")
    made = small.isthmus(
        "train", small.written(folder / "r.yaml", recipe_text()), "--out", folder / "run", "--json"
    )
    assert [stage["steps"] for stage in made.json["stages"]] == [4, 4]
    return folder / "run"


def said(workshop: Workshop, at: int, rows: RowKind) -> tuple[str, str]:
    """The first training row of a stage and the part of it that carries loss, as text without spaces."""
    stage = workshop.recipe.stages[at]
    row = workshop.processor_of(stage).row(workshop.source("train").sample(0), rows=rows, choice=0)
    assert row.token_ids is not None
    assert row.targets is not None
    pictures = sum(row.tokens_per_image or ())
    placeholder = len(workshop.tokenizer)
    assert row.token_ids.count(placeholder) == pictures == 16
    ids = [index for index in row.token_ids if index != placeholder]
    learnt = [target for target in row.targets if target != IGNORED]
    whole, part = (workshop.tokenizer.decode(one).replace(" ", "") for one in (ids, learnt))
    return whole, part


def test_each_stage_has_its_own_rows(run: Path) -> None:
    workshop = isthmus.load(run, small.OPTIONS).workshop
    sample = workshop.source("train").sample(0)
    caption, question, answer = (
        text.replace(" ", "") for text in (sample.captions[0], sample.question or "", sample.answers[0])
    )
    assert said(workshop, 0, "captions") == (f"<s>{caption}\n", f"{caption}\n")
    system = SYSTEM.replace(" ", "").lower()
    assert said(workshop, 1, "questions") == (
        f"<s>{system}user:{question}assistant:{answer}</s>",
        f"{answer}</s>",
    )


def test_training_sees_the_stages_template_and_use_the_models(run: Path, tmp_path: Path) -> None:
    report = json.loads((run / "align" / "data.json").read_text(encoding="utf-8"))
    # Nothing but the start, 16 visual tokens and the supervised caption: what is not supervised are 17 tokens a row.
    assert report["num_tokens"] * (1 - report["supervised_fraction"]) == pytest.approx(17 * report["rows"])
    later = json.loads((run / "instruct" / "data.json").read_text(encoding="utf-8"))
    assert later["num_tokens"] * (1 - later["supervised_fraction"]) > 60 * later["rows"]
    assert json.loads((run / "final" / "template.json").read_text(encoding="utf-8"))["name"] == "vicuna_v1"
    loaded = isthmus.load(run, small.OPTIONS)
    assert loaded.workshop.template is not None
    assert loaded.workshop.template.name == "vicuna_v1"
    assert small.isthmus("ask", run, small.picture(tmp_path / "a.png"), "what is red ?").code == 0


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "lava_plain",
            "stage align: there is no template 'lava_plain' (did you mean 'llava_plain'?); expected one of plain",
        ),
        (
            "chatml",
            "stage align: template 'chatml' needs '<|im_start|>', '<|im_end|>', which the tokenizer lacks",
        ),
    ],
)
def test_a_template_that_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, template: str, words: str
) -> None:
    file = small.written(tmp_path / "r.yaml", recipe_text(template))
    refused = small.isthmus("train", file, "--out", tmp_path / "run")
    assert refused.code == 2
    assert words in refused.sentence
    assert not (tmp_path / "run" / "align").exists()


def test_a_dual_encoder_has_no_use_for_one(tmp_path: Path) -> None:
    file = small.written(tmp_path / "r.yaml", small.DUAL.replace("steps: 4", "steps: 4, template: plain"))
    refused = small.isthmus("train", file, "--out", tmp_path / "run")
    assert refused.code == 2
    assert (
        "stages.0.template: found 'plain', allowed: null, because a dual_encoder reads no text" in refused.err
    )


def text_of(name: str, parts: tuple[str | ImagePart, ...]) -> str:
    """A turn about a picture and its answer, the part that carries loss between « and »."""
    turns = (Turn("user", parts), Turn("assistant", ("a dog",)))
    bound = ChatTemplate.from_name(name).bind(
        bos="<s>", eos="</s>", vocabulary=set(ChatTemplate.from_name(name).specials)
    )
    segments = bound.render(turns)
    learnt = rendered_text([segment for segment in segments if segment.supervised])
    whole = rendered_text(segments)
    assert whole.count(learnt) == 1
    return whole.replace(learnt, f"«{learnt}»")


ASKED = (ImagePart(0), "\nWhat is it?")
CHATS = {
    "vicuna_v1": f"<s>{SYSTEM}USER: <image>\nWhat is it? ASSISTANT: «a dog</s>»",
    "mistral": "<s>[INST] <image>\nWhat is it? [/INST] «a dog</s>»",
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>"
        "<|im_start|>assistant\n«a dog<|im_end|>»"
    ),
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«a dog<|eot_id|>»"
    ),
}


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("llava", "<s><image>«a dog\n»", "vicuna_v1"),
        ("llava_1_5", "<s><image>«a dog\n»", "vicuna_v1"),
        ("llava_1_5_13b", "<s><image>«a dog\n»", "vicuna_v1"),
        ("llava_next", "<s><image>«a dog\n»", "vicuna_v1"),
        ("llava_next_13b", "<s><image>«a dog\n»", "vicuna_v1"),
        ("llava_next_mistral", "<s><image>«a dog\n»", "mistral"),
        ("llava_next_34b", "<s><image>«a dog\n»", "chatml_direct"),
        ("anymal", "<image><s>A photo of «a dog</s>»", "llama3"),
    ],
)
def test_first_stages_show_captions_without_a_chat_around_them(name: str, first: str, second: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.kind == "vision_language_model"
    align, instruct = recipe.stages
    assert align.template is not None
    prompt = None if recipe.evaluation is None else recipe.evaluation.prompt
    asked = (ImagePart(0),) if prompt is None else (ImagePart(0), prompt)
    assert text_of(align.template, asked) == first
    assert instruct.template is None
    assert text_of(recipe.model.language.template, ASKED) == CHATS[second]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "model.language.template=vicunna",
            "model.language.template: there is no template 'vicunna' (did you mean",
        ),
        ("stages.align.template=llava_pain", "stage align: there is no template 'llava_pain' (did you mean"),
    ],
)
def test_a_template_that_is_not_there_is_refused_where_the_table_is_shown(change: str, says: str) -> None:
    refused = small.isthmus("show", "llava", change)
    assert refused.code == 2
    assert says in refused.sentence
