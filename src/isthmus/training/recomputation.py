"""Which parts of a model compute their activations again in the backward pass."""

from collections.abc import Sequence

from isthmus.core.errors import RecipeError
from isthmus.core.protocols import TrainableModel
from isthmus.parts.recomputation import repeated_layers, set_recomputed


def recompute_activations(model: TrainableModel, names: Sequence[str]) -> int:
    """Recompute the named parts, keep the activations of all others; returns how many layers are recomputed.

    A part may be frozen: gradients pass through a frozen language model to the connector, and what they need of it is
    most of a step's memory.

    Raises:
        RecipeError: A name is no part, or the part is no stack of layers.
    """
    parts = model.parts()
    able = [name for name, part in parts.items() if repeated_layers(part)]
    for name in names:
        if name not in able:
            raise RecipeError(
                f"recompute: part {name!r} is no stack of layers that can be recomputed; "
                f"parts of this model that can: {', '.join(able) or 'none'}"
            )
    for part in parts.values():
        set_recomputed(part, enabled=False)
    return sum(set_recomputed(parts[name], enabled=True) for name in names)
