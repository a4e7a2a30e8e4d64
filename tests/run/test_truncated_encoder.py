"""A recipe that reads an encoder before its last layer, trains it, and keeps the token embeddings frozen."""

import json
from pathlib import Path

import small
import torch
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.data.vocabulary import load_tokenizer

LAYERS = 3


def encoder_folder(folder: Path) -> Path:
    """A small SigLIP, with its text encoder and head as on the hub, and its preprocessor file."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    text = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {**sizes, "image_size": 32, "patch_size": 8}
        SiglipModel(SiglipConfig(text_config={**sizes, **text}, vision_config=vision)).save_pretrained(folder)
    third = [0.5, 0.5, 0.5]
    values = {"size": {"height": 32, "width": 32}, "image_mean": third, "image_std": third, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def test_all_but_the_token_embeddings_learns(tmp_path: Path) -> None:
    encoder = encoder_folder(tmp_path / "encoder")
    vision = f"{{kind: pretrained, name: {encoder}, layer: -2, final_norm: false}}"
    stages = small.stage(
        "together", "vision, connector, language", "captions", freeze="[token_embeddings]", steps="3"
    )
    text = small.vision_language(stages=stages, evaluation="").replace(small.VISION, vision)
    recipe, run = small.written(tmp_path / "recipe.yaml", text), tmp_path / "run"

    said = small.isthmus("train", recipe, "--out", run, "--json").json["stages"][0]
    shown = small.isthmus("show", run, "--json").json
    assert said["trainable"] == shown["stages"][0]["trainable"]
    table = shown["stages"][0]["frozen"]
    assert table % 16 == 0 and table > 16
    whole = SiglipModel.from_pretrained(encoder).vision_model
    left_out = (whole.encoder.layers[-1], whole.post_layernorm, whole.head)
    (row,) = (row for row in shown["parts"] if row["name"] == "vision")
    assert row["published_parameters"] == whole.num_parameters()
    assert row["parameters"] == whole.num_parameters() - sum(
        parameter.numel() for module in left_out for parameter in module.parameters()
    )

    tokenizer = load_tokenizer(str(run / "final"))
    assert len(tokenizer) == table // 16
    before = build_model(load_recipe(recipe).model, seed=3, tokenizer=tokenizer).state_dict()
    after = load_file(run / "final" / "model.safetensors")
    same = {name for name, weight in after.items() if torch.equal(weight, before[name])}
    assert same == {"language.network.model.embed_tokens.weight"}
    assert not [name for name in after if f"layers.{LAYERS - 1}." in name and name.startswith("vision")]
    assert not [name for name in after if "head" in name or "post_layernorm" in name]
