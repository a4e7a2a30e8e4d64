"""Random choices as pure functions of their names: workers, ranks and restarts cannot change them."""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor


def seed_of(*names: int | str) -> int:
    """A 63-bit seed that depends on every name, for example `seed_of(run_seed, "order", epoch)`."""
    digest = hashlib.blake2b("\x1f".join(str(name) for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*names: int | str) -> torch.Generator:
    """A fresh generator seeded by `seed_of(*names)`."""
    return torch.Generator().manual_seed(seed_of(*names))


def order_of(num_samples: int, *names: int | str) -> Int[Tensor, " sample"]:
    """A permutation of `range(num_samples)` that depends only on the names."""
    return torch.randperm(num_samples, generator=generator_of(*names))
