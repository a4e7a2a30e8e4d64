"""What a run with low-rank updates leaves behind: a PEFT folder, and merged weights of a language model alone."""

from pathlib import Path

import pytest
import small
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

import isthmus
from isthmus.config.load import load_recipe
from isthmus.core.errors import RecipeError
from isthmus.models.vision_language_model import VisionLanguageModel

IDS = torch.tensor([[1, 5, 9, 2, 7]])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks
def test_the_update_of_a_run_is_a_peft_folder(runs: small.Runs, recipes: Path) -> None:
    run, _ = runs["lora"]
    model = isthmus.load(run).workshop.model
    assert isinstance(model, VisionLanguageModel)
    base = LlamaForCausalLM.from_pretrained(recipes / "language")
    theirs = PeftModel.from_pretrained(base, run / "final" / "lora").eval()
    with torch.no_grad():
        ours = model.language.network(input_ids=IDS).logits
        assert torch.equal(theirs(input_ids=IDS).logits, ours)
        with theirs.disable_adapter():
            assert not torch.equal(theirs(input_ids=IDS).logits, ours)


def test_a_language_model_alone_is_written_merged(recipes: Path, tmp_path: Path) -> None:
    stages = small.stage("read", "lora", "text")
    text = (
        f"name: alone\n{small.DATA}model:\n  kind: language_model\n  language: {{kind: pretrained, "
        f"name: {recipes / 'language'}, context: 64, lora: {{rank: 2, alpha: 4}}}}\nstages:\n{stages}"
    )
    file = small.written(tmp_path / "alone.yaml", text)
    small.isthmus("train", file, "--out", tmp_path / "run", "--json")
    final = tmp_path / "run" / "final"
    merged, base = (
        LlamaForCausalLM.from_pretrained(path) for path in (final / "language", recipes / "language")
    )
    trained = isthmus.load(tmp_path / "run").workshop.model
    with torch.no_grad():
        ours = trained.get_submodule("language.network")(input_ids=IDS).logits
        # fp32, width 16: 3e-8 was measured.
        assert (merged.eval()(input_ids=IDS).logits - ours).abs().max() < 1e-6
        assert (base.eval()(input_ids=IDS).logits - ours).abs().max() > 1e-5


def test_a_language_model_in_four_bits_cannot_learn_whole(recipes: Path, tmp_path: Path) -> None:
    text = (recipes / "lora.yaml").read_text().replace("context: 64,", "context: 64, quantize: nf4,")
    load_recipe(str(small.written(tmp_path / "fine.yaml", text)))
    wrong = text.replace("train: [connector, lora]", "train: [connector, language]")
    assert wrong != text
    with pytest.raises(
        RecipeError, match=r"stages\.1\.train\.1: found 'language', allowed: lora and other parts"
    ):
        load_recipe(str(small.written(tmp_path / "wrong.yaml", wrong)))
