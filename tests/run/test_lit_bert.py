"""LiT with a BERT, in small: a random BERT in a folder learns beside a locked encoder whose features are stored."""

import json
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizer

import isthmus
from isthmus.build.model import build_model
from isthmus.build.text import build_caption_encoder, build_tokenizer
from isthmus.config.load import load_recipe
from isthmus.core.errors import RecipeError
from isthmus.data.scenes import words

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTEXT = 24


def bert_folder(folder: Path, *, vocabulary: int | None = None) -> Path:
    """A random BERT and a WordPiece tokenizer of the scenes' words, as Hugging Face folders hold them."""
    pieces = [*SPECIALS, *sorted(words()), "##s", "##ed"]
    BertTokenizer(vocab={piece: at for at, piece in enumerate(pieces)}).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=vocabulary or len(pieces),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=CONTEXT,
            initializer_range=0.2,
        )
        BertModel(config).save_pretrained(folder)
    return folder


def text_of(folder: Path, *, context: int = CONTEXT) -> str:
    return f"model.text={{kind: pretrained, name: {folder}, context: {context}, head_bias: true}}"


def trained(bert: Path, run: Path, *more: str) -> small.Outcome:
    """The twin of LiT, 60 steps on 200 scenes with a BERT in the place of its transformer."""
    few = ["data.train.num_samples=200", "stages.contrast.steps=60", "stages.contrast.batch_size=32"]
    kept = "stages.contrast.checkpoint_every=20"
    return small.isthmus(
        "train", "tiny/lit", text_of(bert), *few, kept, *more, "--out", run, "--precision", "fp32"
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_only_the_text_side_learns_and_it_is_judged(bert: Path, tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "run"
    outcome = trained(bert, run)
    assert outcome.code == 0, outcome.err
    assert list(cache.rglob("shard-*.safetensors")), "pictures are read from the store"
    final = load_file(run / "final" / "model.safetensors")
    assert {name.split(".")[0] for name in final} == {"text", "scale"}, "the locked encoder is not even saved"
    assert not [name for name in final if "pooler" in name]
    before = load_file(bert / "model.safetensors")
    still = [
        name
        for name, tensor in before.items()
        if "pooler" not in name and torch.equal(tensor, final[f"text.network.{name}"])
    ]
    assert still == []
    lines = (run / "contrast" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [one["loss"] for one in map(json.loads, lines) if one["kind"] == "train"]
    # Who gives every text the same vector has ln 32 = 3.47; measured 2.86.
    assert sum(losses[-10:]) / 10 < 3.2 < losses[0]
    judged = small.isthmus("evaluate", run, "--split", "val", "--limit", "60", "--json").json
    assert set(judged["metrics"]) == {"text_to_image", "image_to_text"}
    assert isthmus.load(run).workshop.tokenizer.cls_token == "[CLS]"


def test_a_killed_run_goes_on_bit_for_bit(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT's dropout is drawn in the step, so a restart draws the same."""
    short = ("stages.contrast.steps=4", "stages.contrast.checkpoint_every=1", "data.train.num_samples=64")
    assert trained(bert, tmp_path / "whole", *short).code == 0
    with monkeypatch.context() as patched:
        small.Killer("contrast", 2).install(patched)
        assert trained(bert, tmp_path / "run", *short).code == 130
    assert trained(bert, tmp_path / "run", *short, "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(tmp_path / "whole")


def test_captions_are_those_of_berts_own_tokenizer(bert: Path) -> None:
    recipe = load_recipe("tiny/lit", [text_of(bert, context=9)])
    tokenizer = build_tokenizer(recipe.model, recipe.data, kept=None)
    assert tokenizer is not None
    captions = build_caption_encoder(recipe.model, tokenizer)
    for text in ("A red Circle .", "two circles , colored blue", "a [SEP] circle"):
        ids, cut = captions.encode_caption(text)
        assert not cut
        if "[SEP]" in text:
            assert ids.count(tokenizer.sep_token_id) == 1, "what somebody types ends no text"
        else:
            assert ids == tokenizer(text)["input_ids"]
    ids, cut = captions.encode_caption("a red circle is above a blue square .")
    assert cut
    assert (len(ids), ids[0], ids[-1]) == (9, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert captions.pad_id == tokenizer.pad_token_id == 0


def test_what_does_not_fit_is_said(bert: Path, tmp_path: Path) -> None:
    recipe = load_recipe("tiny/lit", [text_of(bert, context=CONTEXT + 1)])
    with pytest.raises(
        RecipeError, match=r"model\.text: context: found 25, but the network has 24 positions"
    ):
        build_model(recipe.model)
    short = bert_folder(tmp_path / "short", vocabulary=30)
    recipe = load_recipe("tiny/lit", [text_of(short)])
    tokenizer = build_tokenizer(recipe.model, recipe.data, kept=None)
    with pytest.raises(RecipeError, match=r"has \d+ ids, but its network has vectors for 30"):
        build_model(recipe.model, tokenizer=tokenizer)


def test_a_whole_checkpoint_cannot_fill_it() -> None:
    with pytest.raises(
        RecipeError, match=r"model\.weights: found 'clip', allowed: null, because these weights"
    ):
        load_recipe(
            "lit_bert",
            [
                "model.weights=clip",
                "model.vision={kind: vit, image_size: 8, patch: 4, "
                "width: 768, layers: 1, heads: 2, features: cls}",
            ],
        )
