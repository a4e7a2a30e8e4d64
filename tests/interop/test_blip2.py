"""BLIP-2's other layouts: LAVIS' tensors, written here by the names its code has, and the BERT a Q-Former starts from."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))

import blip2_twins
from blip2_twins import SHAPE, WORDS

from isthmus.build.model import build_model
from isthmus.config.qformer import QFormerPretrainer as Settings
from isthmus.core.errors import CheckpointError
from isthmus.interop.blip2 import load_blip2, load_lavis, start_from_bert
from isthmus.models.qformer_pretrainer import QFormerPretrainer
from isthmus.parts.checkpoints import PretrainedSource


def lavis_tensors(model: QFormerPretrainer) -> dict[str, Tensor]:
    """The first stage's tensors under LAVIS' names, spelled out one by one from its modules."""
    text = model.connector.text
    assert text is not None
    named = {
        "query_tokens": model.connector.queries[None],
        "ln_vision.weight": model.connector.patch_norm.weight,
        "ln_vision.bias": model.connector.patch_norm.bias,
        "Qformer.bert.embeddings.position_ids": torch.arange(12)[None],
        "Qformer.bert.embeddings.word_embeddings.weight": text.words.weight,
        "Qformer.bert.embeddings.position_embeddings.weight": text.positions.weight,
        "Qformer.cls.predictions.bias": text.head_bias,
        "Qformer.cls.predictions.decoder.weight": text.words.weight,
        "Qformer.cls.predictions.decoder.bias": text.head_bias,
        "temp": model.heads.temperature,
    }
    modules = {
        "Qformer.bert.embeddings.LayerNorm": model.connector.layers.norm,
        "Qformer.cls.predictions.transform.dense": text.head[0],
        "Qformer.cls.predictions.transform.LayerNorm": text.head[2],
        "vision_proj": model.heads.image,
        "text_proj": model.heads.text,
        "itm_head": model.heads.match,
    }
    for at, layer in enumerate(model.connector.layers.layers):
        place = f"Qformer.bert.encoder.layer.{at}"
        attentions = {"attention": layer.attention, "crossattention": layer.cross_attention}
        for word, attention in attentions.items():
            if attention is not None:
                modules |= {
                    f"{place}.{word}.self.query": attention.query,
                    f"{place}.{word}.self.key": attention.key,
                    f"{place}.{word}.self.value": attention.value,
                    f"{place}.{word}.output.dense": attention.out,
                    f"{place}.{word}.output.LayerNorm": attention.norm,
                }
        for ending, ffn in (("_query", layer.ffn), ("", text.ffns[at])):
            modules |= {
                f"{place}.intermediate{ending}.dense": ffn.expand,
                f"{place}.output{ending}.dense": ffn.contract,
                f"{place}.output{ending}.LayerNorm": ffn.norm,
            }
    for name, module in modules.items():
        named |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    vision = model.vision.network.state_dict()
    named |= {
        "visual_encoder.cls_token": vision["embeddings.class_embedding"],
        "visual_encoder.pos_embed": vision["embeddings.position_embedding"],
    }
    for leaf in ("weight", "bias"):
        named[f"visual_encoder.patch_embed.proj.{leaf}"] = vision[f"embeddings.patch_embedding.{leaf}"]
    for at in range(3):
        ours, theirs = f"encoder.layers.{at}", f"visual_encoder.blocks.{at}"
        query, _, value = vision[f"{ours}.self_attn.qkv.bias"].chunk(3)
        named |= {f"{theirs}.attn.q_bias": query, f"{theirs}.attn.v_bias": value}
        named[f"{theirs}.attn.qkv.weight"] = vision[f"{ours}.self_attn.qkv.weight"]
        for leaf in ("weight", "bias"):
            named[f"{theirs}.attn.proj.{leaf}"] = vision[f"{ours}.self_attn.projection.{leaf}"]
            for inner in ("fc1", "fc2"):
                named[f"{theirs}.mlp.{inner}.{leaf}"] = vision[f"{ours}.mlp.{inner}.{leaf}"]
            for number in (1, 2):
                named[f"{theirs}.norm{number}.{leaf}"] = vision[f"{ours}.layer_norm{number}.{leaf}"]
    return {name: tensor.detach().clone().contiguous() for name, tensor in named.items()}


@torch.no_grad()
def drawn(model: QFormerPretrainer, seed: int) -> QFormerPretrainer:
    """Every number random, and biases of keys zero, as the published encoder has none."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    for name, tensor in model.vision.network.state_dict().items():
        if name.endswith("qkv.bias"):
            tensor[24:48] = 0
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blip2_twins.twin(Blip2ForImageTextRetrieval, tmp_path / "hf")
    return tmp_path / "hf"


def test_a_file_with_lavis_names_fills_the_first_stage_to_the_last_number(
    folder: Path, tmp_path: Path
) -> None:
    first, other = drawn(blip2_twins.pretrainer(folder), 1), drawn(blip2_twins.pretrainer(folder), 2)
    save_file(lavis_tensors(first), tmp_path / "lavis.safetensors")
    assert set(load_lavis(other, tmp_path / "lavis.safetensors")) == {"connector", "heads", "vision"}
    here, there = first.state_dict(), other.state_dict()
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_the_second_stage_goes_on_from_the_first_without_words_and_heads(
    folder: Path, tmp_path: Path
) -> None:
    first = drawn(blip2_twins.pretrainer(folder), 1)
    save_file(lavis_tensors(first), tmp_path / "lavis.safetensors")
    blip2_twins.twin(Blip2ForConditionalGeneration, tmp_path / "second")
    second = blip2_twins.generator_model(tmp_path / "second")
    before = second.connector.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    assert set(load_lavis(second, tmp_path / "lavis.safetensors")) == {"connector", "vision"}
    for name, tensor in second.connector.state_dict().items():
        expected = before if name.startswith("projection.") else first.connector.state_dict()
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("projection", ["opt_proj", "t5_proj"])
def test_a_file_of_the_second_stage_holds_what_learned(projection: str, folder: Path, tmp_path: Path) -> None:
    tensors = {
        name: tensor
        for name, tensor in lavis_tensors(drawn(blip2_twins.pretrainer(folder), 1)).items()
        if (
            not name.startswith(
                ("visual_encoder.", "vision_proj", "text_proj", "itm_head", "temp", "Qformer.cls")
            )
            and not any(
                piece in name
                for piece in (".intermediate.", ".output.dense", ".output.LayerNorm", "_embeddings")
            )
        )
        or "ttention.output" in name
    }
    generator = torch.Generator().manual_seed(5)
    tensors[f"{projection}.weight"] = torch.randn(20, SHAPE.width, generator=generator)
    tensors[f"{projection}.bias"] = torch.randn(20, generator=generator)
    save_file(tensors, tmp_path / "lavis.safetensors")
    blip2_twins.twin(Blip2ForConditionalGeneration, tmp_path / "second")
    second = blip2_twins.generator_model(tmp_path / "second")
    assert load_lavis(second, tmp_path / "lavis.safetensors") == ("connector",)
    assert second.connector.projection is not None
    assert torch.equal(second.connector.projection.weight, tensors[f"{projection}.weight"])
    assert torch.equal(second.connector.queries, tensors["query_tokens"][0])
    del tensors["query_tokens"]
    tensors["opt_model.lm_head.weight"] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"unknown opt_model\.lm_head\.weight; connector: missing queries; name a checkpoint",
    ):
        load_lavis(second, tmp_path / "wrong.safetensors")


def test_a_checkpoint_that_computes_something_else_is_refused(folder: Path) -> None:
    model = blip2_twins.pretrainer(folder)
    model.connector.shape = blip2_twins.QFormerShape(**vars(SHAPE) | {"patch_norm_eps": 1e-5})
    with pytest.raises(CheckpointError, match=r"connector\.norm_eps is 1e-06, the model has 1e-05"):
        load_blip2(model, PretrainedSource(name=str(folder)))


def bert(folder: Path, *, width: int = SHAPE.width) -> BertForMaskedLM:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=WORDS - 1,
        hidden_size=width,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        intermediate_size=SHAPE.ffn,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    network = BertForMaskedLM(config).eval()
    with torch.no_grad():
        network.bert.embeddings.token_type_embeddings.weight.zero_()
    network.save_pretrained(folder)
    return network


def test_words_start_as_bert_and_queries_with_its_feed_forwards(folder: Path, tmp_path: Path) -> None:
    """Measured in float32 on one thread: states and logits equal BERT's bit for bit; the bound is 2e-6."""
    theirs = bert(tmp_path / "bert")
    connector = blip2_twins.pretrainer(folder).connector
    start_from_bert(connector, PretrainedSource(name=str(tmp_path / "bert")))
    token_ids = torch.randint(0, WORDS - 1, (2, 6), generator=torch.Generator().manual_seed(1))
    there = torch.ones(2, 6, dtype=torch.bool)
    there[1, 4:] = False
    with torch.no_grad():
        said = theirs(input_ids=token_ids, attention_mask=there.long(), output_hidden_states=True)
        states = connector.read(token_ids, there)
        assert connector.text is not None
        logits = connector.text.logits(states[there])
    torch.testing.assert_close(states[there], said.hidden_states[-1][there], rtol=0, atol=2e-6)
    torch.testing.assert_close(logits[:, : WORDS - 1], said.logits[there], rtol=0, atol=2e-6)
    for layer, ffn in zip(connector.layers.layers, connector.text.ffns, strict=True):
        assert torch.equal(layer.ffn.expand.weight, ffn.expand.weight)


def test_a_bert_of_other_sizes_is_refused(folder: Path, tmp_path: Path) -> None:
    bert(tmp_path / "bert", width=20)
    with pytest.raises(
        CheckpointError, match=r"does not fit the Q-Former: .*expected \(16, 16\).*give one of its"
    ):
        start_from_bert(
            blip2_twins.pretrainer(folder).connector, PretrainedSource(name=str(tmp_path / "bert"))
        )


def from_recipe(folder: Path, **chosen: object) -> dict[str, Tensor]:
    """The first stage's tensors as a recipe's model block builds them."""
    settings = Settings.model_validate(
        {
            "vision": {
                "kind": "pretrained",
                "name": str(folder),
                "layer": -1,
                "features": "all",
                "final_norm": False,
            },
            "connector": {
                "queries": SHAPE.num_queries,
                "width": SHAPE.width,
                "layers": SHAPE.num_layers,
                "heads": SHAPE.num_heads,
                "ffn": SHAPE.ffn,
                "dropout": 0.0,
                "norm_eps": SHAPE.patch_norm_eps,
                "bert": chosen.get("bert"),
            },
            "text": {
                "tokenizer": {"kind": "trained", "data": "none", "vocabulary": WORDS - 1},
                "context": 12,
                "positions": 12,
            },
            "embed_dim": 8,
            "weights": chosen.get("weights"),
        }
    )
    return build_model(settings).state_dict()


@pytest.mark.parametrize("layout", ["hugging_face", "lavis"])
def test_a_recipe_names_published_weights_of_either_layout(layout: str, folder: Path, tmp_path: Path) -> None:
    given = drawn(blip2_twins.pretrainer(folder), 1)
    if layout == "hugging_face":
        load_blip2(given, PretrainedSource(name=str(folder)))
        built, left = from_recipe(folder, weights=str(folder)), ("connector.text.head", "heads.temperature")
    else:
        save_file(lavis_tensors(given), tmp_path / "lavis.safetensors")
        built, left = from_recipe(folder, weights=str(tmp_path / "lavis.safetensors")), ("none",)
    expected = given.state_dict()
    assert built.keys() == expected.keys()
    same = {name for name in expected if torch.equal(built[name], expected[name])}
    assert same == {name for name in expected if not name.startswith(left)}


def test_a_recipe_names_the_bert_that_layers_and_words_start_from(folder: Path, tmp_path: Path) -> None:
    """Rows of words are BERT's; the one more that begins a caption, queries, cross-attention and norm are not."""
    bert(tmp_path / "bert")
    given = drawn(blip2_twins.pretrainer(folder), 1)
    start_from_bert(given.connector, PretrainedSource(name=str(tmp_path / "bert")))
    built = from_recipe(folder, bert=str(tmp_path / "bert"))
    expected = given.state_dict()
    words = "connector.text.words.weight"
    assert torch.equal(built[words][: WORDS - 1], expected[words][: WORDS - 1])
    same = {name for name in expected if torch.equal(built[name], expected[name])}
    assert {name for name in expected if name.startswith("connector.") and name not in same} == {
        name
        for name in expected
        if name.startswith(("connector.queries", "connector.patch_norm"))
        or ".cross_attention." in name
        or name in (words, "connector.text.head_bias")
    }
