"""The parameter table against hand-counted modules."""

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from isthmus.build.names import card_file
from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.inspection.parameters import InnerRow, PartRow, part_rows, stage_split
from isthmus.models.language_model import LanguageModelOnly
from isthmus.models.model import Model
from isthmus.parts.checkpoints import PretrainedSource, load_network
from isthmus.parts.language.language_model import LanguageModel


class Assembly(Model):
    """Parts as they are given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self._named = parts

    def parts(self) -> dict[str, nn.Module]:
        return self._named

    def encode(self, batch: Batch) -> Encoded:
        raise AssertionError(batch)


class Latents(nn.Module):
    """A few numbers of its own, a list of layers, and a norm."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(5, 4))
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(4)


def test_rows_inside_a_part_are_its_modules_and_what_it_holds_itself() -> None:
    (row,) = part_rows(Assembly(connector=Latents(2)), {"connector": "latents"})
    assert row == PartRow(
        name="connector",
        kind="latents",
        parameters=20 + 2 * 20 + 8,
        inside=(
            InnerRow(name="own", kind="Latents", parameters=20),
            InnerRow(name="layers.0", kind="Linear", parameters=20),
            InnerRow(name="layers.1", kind="Linear", parameters=20),
            InnerRow(name="norm", kind="LayerNorm", parameters=8),
        ),
    )


def test_long_lists_stay_together_and_very_many_modules_have_no_rows() -> None:
    (row,) = part_rows(Assembly(connector=Latents(9)), {})
    assert [inner.name for inner in row.inside] == ["own", "layers", "norm"]
    assert row.inside[1].parameters == 9 * 20
    (row,) = part_rows(Assembly(many=nn.ModuleList([nn.Linear(2, 2) for _ in range(20)])), {})
    assert (row.parameters, row.inside) == (120, ())
    (row,) = part_rows(Assembly(one=nn.Sequential(nn.Sequential(nn.Linear(2, 2)))), {})
    assert (row.parameters, row.inside) == (6, ())


def test_what_a_smaller_part_holds_is_not_counted_again() -> None:
    whole = nn.ModuleDict({"base": nn.Linear(8, 8), "head": nn.Linear(8, 2), "low_rank": nn.Linear(8, 1)})
    language, lora = part_rows(Assembly(language=whole, lora=whole["low_rank"]), {})
    assert (language.parameters, lora.parameters) == (72 + 18, 9)
    assert [inner.name for inner in language.inside] == ["base", "head"]


def test_a_tied_head_is_counted_once() -> None:
    # 124,439,808 and the head's 50,257 x 768 are published; torchinfo prints the tied head in brackets.
    source = PretrainedSource(name="gpt2", random=True, card=card_file("openai-community/gpt2"))
    with torch.device("meta"):
        model = LanguageModelOnly(language=LanguageModel(network=load_network(AutoModelForCausalLM, source)))
    rows = part_rows(model, {})
    assert rows[0].parameters == 124_439_808
    assert rows[0].inside == (
        InnerRow(name="transformer", kind="GPT2Model", parameters=124_439_808),
        InnerRow(name="lm_head", kind="Linear", parameters=38_597_376, tied=True),
    )
    embeddings = model.inner_parts()["token_embeddings"]
    assert stage_split(rows, ["language"]) == (124_439_808, 0)
    assert stage_split(rows, ["language"], frozen=embeddings.parameters()) == (
        124_439_808 - 38_597_376,
        38_597_376,
    )
