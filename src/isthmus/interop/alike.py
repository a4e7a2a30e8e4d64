"""What changes the numbers of a transformer although no weight has another name or shape."""

from collections.abc import Iterator, Sequence

from isthmus.core.errors import CheckpointError
from isthmus.nn.transformer import TransformerShape

_ACTIVATIONS = {"gelu_pytorch_tanh": "tanh_gelu", "gelu_new": "tanh_gelu"}
"""What transformers calls by another name."""


def differences(
    part: str, shape: TransformerShape, *, heads: int, activation: str, norm_eps: float | None = None
) -> Iterator[str]:
    """In what a checkpoint's configuration differs from the blocks that it is to fill.

    Args:
        part: What messages call the blocks.
        shape: Their sizes.
        heads: Attention heads there.
        activation: What stands inside the feed-forward there, in transformers' words.
        norm_eps: Epsilon of the layer norms there; None: not compared.
    """
    found: dict[str, tuple[object, object]] = {
        "heads": (shape.num_heads, heads),
        "activation": (shape.activation, _ACTIVATIONS.get(activation, activation)),
    }
    if norm_eps is not None:
        found["norm_eps"] = (shape.norm_eps, norm_eps)
    for key, (ours, due) in found.items():
        if ours != due:
            yield f"{part}.{key} is {due}, the model has {ours}"


def refuse_differences(wrong: Sequence[str], *, name: str) -> None:
    """Say all of them in one sentence; nothing where there is none.

    Raises:
        CheckpointError: There is one.
    """
    if wrong:
        raise CheckpointError(
            f"{name} computes something else than the model: {'; '.join(wrong)}; write the checkpoint's values into "
            "the recipe"
        )
