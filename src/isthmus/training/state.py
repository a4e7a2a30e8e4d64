"""Everything that decides how training goes on, as flat tensors: weights that learn, optimizer, averages, buffers."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.training.averaging import WeightAverage
from isthmus.training.parameters import TrainableModule, TrainableSplit


def trained_tensors(model: TrainableModule, split: TrainableSplit) -> dict[str, Tensor]:
    """The tensors that a stage may have changed: trained parameters, and buffers outside frozen parts, by name."""
    tensors: dict[str, Tensor] = {name: parameter.detach() for name, parameter in split.trainable.items()}
    tensors.update((name, model.get_buffer(name)) for name in split.saved_buffers)
    return tensors


@torch.no_grad()
def load_trained_tensors(
    model: TrainableModule, split: TrainableSplit, tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors made by `trained_tensors` back into the model.

    Raises:
        CheckpointError: Names or shapes differ from the model's.
    """
    targets = trained_tensors(model, split)
    _check_names(targets, tensors)
    for name, target in targets.items():
        target.copy_(tensors[name])


@final
class TrainingState:
    """Gathers and restores the tensors of a checkpoint."""

    def __init__(
        self,
        *,
        model: TrainableModule,
        split: TrainableSplit,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> None:
        self._model = model
        self._split = split
        self._optimizer = optimizer
        self._average = average
        names = {id(parameter): name for name, parameter in split.trainable.items()}
        self._order = [names[id(member)] for group in optimizer.param_groups for member in group["params"]]

    def gather(self) -> dict[str, Tensor]:
        """Flat tensors named `model/<name>`, `average/<name>` and `optimizer/<key>/<name>`."""
        tensors = {
            f"model/{name}": tensor for name, tensor in trained_tensors(self._model, self._split).items()
        }
        if self._average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self._average.averages.items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{key}/{self._order[index]}": value for key, value in entries.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put gathered tensors back.

        Raises:
            CheckpointError: They do not fit this model, its average or its optimizer.
        """
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind not in groups:
                raise CheckpointError(
                    f"the checkpoint holds an unknown tensor {name!r}; it was made by another version"
                )
            groups[kind][rest] = tensor
        load_trained_tensors(self._model, self._split, groups["model"])
        averages = {} if self._average is None else self._average.averages
        _check_names(averages, groups["average"])
        for name, average in averages.items():
            average.copy_(groups["average"][name])
        self._restore_optimizer(groups["optimizer"])

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        index_of = {name: index for index, name in enumerate(self._order)}
        state: dict[int, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            key, _, name = path.partition("/")
            if name not in index_of:
                raise CheckpointError(
                    f"the checkpoint has optimizer state for {name!r}, which is not trained here"
                )
            state.setdefault(index_of[name], {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _check_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"the saved tensors do not fit the model: {len(missing)} missing (first {missing[:1]}), {len(unknown)} "
            f"unknown (first {unknown[:1]}); resume with the recipe and version they were made with"
        )
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise CheckpointError(
                f"saved tensor {name!r} has shape {tuple(found[name].shape)}, the model expects {tuple(tensor.shape)}; "
                f"resume with the recipe it was made with"
            )


def mismatches(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Every name that is missing, unknown or of another shape, in words; empty where saved tensors fit."""
    wrong = [f"missing {name}" for name in expected.keys() - found.keys()]
    wrong += [f"unknown {name}" for name in found.keys() - expected.keys()]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    return sorted(wrong)
