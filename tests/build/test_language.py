"""Language models from a recipe: saved updates, placeholders, special ids."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Core
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from isthmus.build.checkpoints import Origin
from isthmus.build.language import BuiltLanguage, build_language
from isthmus.config.joining import Placeholder, Reuse
from isthmus.config.language import LlamaLanguage, Lora, PretrainedLanguage, TrainedTokenizer
from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.parts.language.lora import LoraUpdate

TARGETS = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
        LlamaForCausalLM(config).save_pretrained(path)
    return path


def built(folder: Path, placeholder: Placeholder = "virtual", **settings: object) -> BuiltLanguage:
    config = PretrainedLanguage(name=str(folder), context=64, **settings)
    return build_language(config, Origin(), placeholder=placeholder, tokenizer=None)


@torch.no_grad()
def saved(folder: Path, target: Path) -> LoraUpdate:
    """A PEFT folder whose update does something."""
    update = built(folder, lora=Lora(rank=2, alpha=4, targets=TARGETS)).lora
    assert isinstance(update, LoraUpdate)
    for tensor in update.tensors().values():
        tensor.normal_(generator=torch.Generator().manual_seed(0))
    update.save(target)
    return update


def _without(name: str, folder: Path) -> None:
    (folder / name).unlink()


def _cut(name: str, folder: Path) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:700])


def _said(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)


def _wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    _said(json.dumps(config | {"hidden_size": 32}), folder)


@pytest.mark.parametrize(
    ("damage", "raised", "says"),
    [
        (partial(_without, "model.safetensors"), CheckpointError, "cannot be read as a Hugging Face folder"),
        (partial(_cut, "model.safetensors"), CheckpointError, "are damaged or do not fit .*SafetensorError"),
        (partial(_said, "{"), CheckpointError, "cannot be read as a Hugging Face folder .*valid JSON"),
        (partial(_said, "[]"), RecipeError, "name: Unrecognized model in"),
        (
            partial(_said, '{"model_type": "llama", "hidden_size": "x"}'),
            CheckpointError,
            "are damaged or do not",
        ),
        (partial(_said, "{}"), RecipeError, "name: Unrecognized model in"),
        (partial(_said, '{"model_type": "nope"}'), RecipeError, "has model type `nope` but .*out of date.$"),
        (
            partial(_said, '{"model_type": "t5"}'),
            RecipeError,
            "name: '.*' is of type 't5', which is no causal language model; .* use kind: encoder_decoder$",
        ),
        (
            _wider,
            CheckpointError,
            r"have other sizes than .*: lm_head.weight is \(50, 16\), expected \(50, 32\)",
        ),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], raised: type[Exception], says: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(raised, match=says) as caught:
        built(copy)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "language").write_text("mine")
    with pytest.raises(CheckpointError, match=r"name: '.*language' cannot be read as a Hugging Face folder"):
        built(tmp_path / "language")


def test_an_update_starts_from_a_folder(folder: Path, tmp_path: Path) -> None:
    before = saved(folder, tmp_path / "update")
    after = built(folder, lora=Lora(rank=2, alpha=4, targets=TARGETS, weights=str(tmp_path / "update"))).lora
    assert isinstance(after, LoraUpdate)
    for name, tensor in before.tensors().items():
        assert torch.equal(after.tensors()[name], tensor)


def test_a_folder_that_does_not_fit_is_refused_with_every_difference(folder: Path, tmp_path: Path) -> None:
    saved(folder, tmp_path / "update")
    with pytest.raises(
        CheckpointError,
        match=r"update does not fit .*: rank is 2 there and 3 here; .*alpha is 4 there and 6 here",
    ) as caught:
        built(folder, lora=Lora(rank=3, alpha=6, targets=("q_proj",), weights=str(tmp_path / "update")))
    said = str(caught.value)
    assert said.count("unknown base_model.model.model.layers.") == 4  # A and B of v_proj in two layers
    assert said.count("q_proj.lora_A.weight is (2, 16), expected (3, 16)") == 2
    with pytest.raises(CheckpointError, match=r"model\.language\.lora\.weights: .* is no PEFT folder"):
        built(folder, lora=Lora(targets=TARGETS, weights=str(folder)))


def test_a_target_that_matches_nothing_names_its_key(folder: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"model\.language\.lora\.targets: LoRA targets c_attn match no .*q_proj"
    ):
        built(folder, lora=Lora(targets=("c_attn",)))


def test_a_language_model_of_our_own_has_its_tokenizers_special_ids(tmp_path: Path) -> None:
    """Special tokens in an order that `train_tokenizer` does not use: nothing but the tokenizer can say their ids."""
    core = Core(WordLevel({"a": 0, "</s>": 1, "b": 2, "<pad>": 3, "<s>": 4}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    own = LlamaLanguage(
        tokenizer=TrainedTokenizer(data="train", vocabulary=90),
        width=16,
        layers=1,
        heads=2,
        ffn=32,
        context=32,
    )
    built_one = build_language(own, Origin(), tokenizer=tokenizer)
    built_one.model.save_as_checkpoint(tmp_path)
    network = AutoModelForCausalLM.from_pretrained(tmp_path)
    for settings in (network.config, network.generation_config):
        assert (settings.pad_token_id, settings.bos_token_id, settings.eos_token_id) == (3, 4, 1)
    assert built_one.model.vocabulary == 5
    assert build_language(own, Origin(random=True), tokenizer=None).model.vocabulary == 90


def test_placeholders_virtual_added_and_reused(folder: Path) -> None:
    virtual = built(folder, "virtual")
    assert (virtual.placeholder_id, virtual.model.vocabulary) == (50, 50)
    added = built(folder, "add")
    assert (added.placeholder_id, added.model.vocabulary) == (50, 51)
    head = added.model.network.get_output_embeddings()
    assert head.weight.shape[0] == 51
    # The rows that were there keep their numbers.
    before, after = virtual.model.embed(torch.arange(50)[None]), added.model.embed(torch.arange(50)[None])
    assert torch.equal(before, after)
    reused = built(folder, Reuse(reuse=7))
    assert (reused.placeholder_id, reused.model.vocabulary) == (7, 50)
    with pytest.raises(RecipeError, match=r"id 50 is outside the vocabulary of 50 tokens"):
        built(folder, Reuse(reuse=50))


def test_a_context_longer_than_the_table_of_positions_is_refused(folder: Path) -> None:
    gpt2 = PretrainedLanguage(name="openai-community/gpt2", context=1025)
    with pytest.raises(RecipeError, match=r"context: found 1,025, but .* reads 1,024 tokens at most"):
        build_language(gpt2, Origin(random=True), tokenizer=None)
    rotary = PretrainedLanguage(name=str(folder), context=2049)
    assert build_language(rotary, Origin(), tokenizer=None).model.num_positions == 2048
