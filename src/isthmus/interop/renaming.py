"""Names of tensors from one project's words into another's."""

from collections.abc import Mapping

import torch
from torch import Tensor

_WHOLE = ("query", "key", "value")


def renamed(name: str, words: Mapping[str, str]) -> str | None:
    """The name with its beginning replaced; words that end with a sign are beginnings, others whole names.

    Returns:
        None where no word fits.
    """
    if name in words:
        return words[name]
    start = next((old for old in words if old[-1] in "._" and name.startswith(old)), None)
    return None if start is None else words[start] + name.removeprefix(start)


def with_joined_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with `….attention.query`, `key` and `value` joined as the modules here hold them.

    Blocks have one matrix for all three (`qkv`, in that order); a pooling head, whose queries come from another
    sequence, has one for keys and values (`key_value`).
    """
    joined = {name: tensor for name, tensor in tensors.items() if _place_of(name) is None}
    for place in dict.fromkeys(_place_of(name) for name in tensors):
        for kind in ("weight", "bias") if place is not None else ():
            query, key, value = (tensors[f"{place}.{word}.{kind}"] for word in _WHOLE)
            if place == "image_head.attention":
                joined[f"{place}.query.{kind}"] = query
                joined[f"{place}.key_value.{kind}"] = torch.cat([key, value])
            else:
                joined[f"{place}.qkv.{kind}"] = torch.cat([query, key, value])
    return joined


def _place_of(name: str) -> str | None:
    """The attention that one of three matrices belongs to."""
    place, found, rest = name.rpartition(".attention.")
    return f"{place}.attention" if found and rest.split(".")[0] in _WHOLE else None
