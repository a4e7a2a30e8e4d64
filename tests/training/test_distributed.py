"""Two and three processes learn what one process learns from the same rows, to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from isthmus.objectives.representations import Compares, joined, whole
from isthmus.training.settings import Services

from .pairs import PairModel, PairStream
from .ranks import NUM, OBJECTIVES, ROWS, SHARES, read, rows_of, trained
from .remembering import Texts, remembered

ROOT = Path(__file__).parents[2]
Found = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What three processes found; they meet through a file, talk over 127.0.0.1 and end by themselves."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.training.ranks"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM)
    ]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * NUM, "\n".join(said)
    cases: Found = {}
    for key, tensor in load_file(folder / "found.safetensors").items():
        case, _, name = key.partition("/")
        cases.setdefault(case, {})[name] = tensor
    return cases


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Values around 0.01 to 5 in float64."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() <= 1e-11, name


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("name", ["contrastive", "sigmoid"])
def test_several_processes_learn_what_one_learns(found: Found, name: str, texts: int, num: int) -> None:
    """With dropout, clipping, micro-batches, and numbers of texts that differ between micro-batches."""
    alone = trained(name, Services(), PairStream(ROWS * num, texts_a_picture=texts))
    assert_alike(found[f"trained {name} {texts} {num}"], alone)


def test_tokens_weigh_the_same_in_whichever_process_they_are(found: Found) -> None:
    assert_alike(found["read"], read(Services(), slice(None)))


@pytest.mark.parametrize("num", [2, 3])
def test_several_processes_remember_what_one_remembers(found: Found, num: int) -> None:
    """Slow copies and queues too, with numbers of pictures and texts that differ between processes.

    The loss is computed in float32: at most 7.5e-7 was measured, of values up to 1.
    """
    alone = remembered(Services(), Texts(sum(SHARES[:num])))
    together = found[f"remembered {num}"]
    assert together.keys() == alone.keys()
    assert int(alone["momentum.images.num_seen"]) == 3 * sum(SHARES[:num])
    for name, tensor in alone.items():
        assert (together[name] - tensor).abs().max() <= 1e-5, name


def test_messages(found: Found) -> None:
    """Of two processes: only the second has a gradient (of 5) and a stop signal; the first has the tensor of 7."""
    given = {name: tensor.tolist() for name, tensor in found["messages"].items()}
    assert given == {
        "gradient": [[5.0, 5.0], [5.0, 5.0]],
        "copied": [7.0, 7.0, 7.0],
        "stops": [-1, 15],
        "sum": [2.0, 1.0],
    }


def gradients_alone(name: str) -> dict[str, Tensor]:
    """Loss and gradients of one process that has the rows of all."""
    model = PairModel().eval()
    objective = OBJECTIVES[name](model)
    assert isinstance(objective, Compares)
    batches = [batch for rank in range(NUM) for batch in rows_of(rank)]
    every = joined([objective.representations(model.encode(batch), batch) for batch in batches])
    loss = objective.share(every, whole(every))
    loss.backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return gradients | {"loss": loss.detach()}


@pytest.mark.parametrize("case", ["uneven contrastive", "uneven sigmoid", "gathered sigmoid"])
def test_processes_may_hold_different_numbers_of_pictures(found: Found, case: str) -> None:
    assert_alike(found[case], gradients_alone(case.split()[1]))


def test_a_local_loss_without_gradients_of_others_points_elsewhere(found: Found) -> None:
    """The value is right, so nobody notices; averaged over processes the gradient is not that of the batch.

    With all similarities in every process only the length is wrong, by the number of processes.
    """
    model = PairModel().eval()
    objective = OBJECTIVES["contrastive"](model)
    assert isinstance(objective, Compares)
    (batch,) = PairStream([2 * NUM]).micro_batches(0)
    given = objective.representations(model.encode(batch), batch)
    loss = objective.share(given, whole(given))
    loss.backward()
    names = [name for name, p in model.named_parameters() if name.startswith(("image", "text"))]
    true = torch.cat([model.get_parameter(name).grad.flatten() for name in names])
    local, all_rows = (
        torch.cat([found[f"{kind} without"][name].flatten() for name in names])
        for kind in ("local", "global")
    )
    assert found["local without"]["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    assert found["global without"]["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
    assert torch.cosine_similarity(local, true, dim=0) < 0.97
    torch.testing.assert_close(all_rows * NUM, true, rtol=1e-10, atol=1e-13)
