"""Gated cross-attention in any decoder-only language model, by hooks on its layers (Alayrac et al., 2022, 3.1.2).

The language model is neither copied, wrapped nor subclassed: a hook before some of its decoder layers runs a gated
block on the hidden states. Gradients, caches and activation checkpointing are those of the language model's own layers,
as hooks run inside what is recomputed.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from isthmus.parts.fusion.gated_block import GatedBlock, GatedShape
from isthmus.parts.fusion.media import Pictures

Placement = Literal["first", "last"]
"""Of each group of layers, which one a block stands before."""


def block_layers(num_layers: int, *, every: int, placement: Placement) -> tuple[int, ...]:
    """The layers that a block stands before, counted from 0.

    Args:
        num_layers: Decoder layers of the language model.
        every: One block for each group of this many layers.
        placement: `first`: layers i with i % every == 0 (the paper starts from the very first layer); `last`: layers i
            with (i + 1) % every == 0 (OpenFlamingo).

    Raises:
        ValueError: No layer is chosen.
    """
    offset = 0 if placement == "first" else 1
    layers = tuple(index for index in range(num_layers) if (index + offset) % every == 0)
    if not layers:
        raise ValueError(
            f"of every {every} layers one gets a block, but the language model has {num_layers}; choose a smaller one"
        )
    return layers


def decoder_of(network: PreTrainedModel) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder layers of a causal language model, and the layers, whatever they are called.

    Raises:
        ValueError: No list of modules has as many entries as the configuration has layers.
    """
    num_layers = network.config.get_text_config().num_hidden_layers
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if not found:
        raise ValueError(
            f"a {type(network).__name__} has no list of {num_layers} decoder layers; "
            "cross_attention needs a decoder-only language model"
        )
    name, layers = min(found, key=lambda pair: pair[0].count("."))
    return network.get_submodule(name.rpartition(".")[0]), layers


@dataclass(kw_only=True)
class _View:
    """What the blocks see during one forward pass, or during the passes of one generation."""

    pictures: Pictures
    visual: Float[Tensor, "row token dim"]
    seen: Bool[Tensor, "repeated_row position token"] | None = None
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@final
class GatedCrossAttention(nn.Module):
    """The gated blocks of one language model, in front of its layers.

    With activation checkpointing (the non-reentrant kind, transformers' default), the pictures of the last forward pass
    are kept for the backward pass: run the backward pass before the next forward pass.
    """

    def __init__(
        self,
        *,
        network: PreTrainedModel,
        every: int,
        placement: Placement,
        width: int,
        context_width: int,
        shape: GatedShape,
    ) -> None:
        """Build the blocks and attach them.

        Args:
            network: The causal language model; it is not changed but for the hooks.
            every: One block for each group of this many layers.
            placement: Before the first or the last layer of each group.
            width: Size of its hidden states.
            context_width: Size of the visual tokens.
            shape: Attention and feed-forward of each block.

        Raises:
            ValueError: The network's layers cannot be found, or none is chosen.
        """
        super().__init__()
        self.context_width = context_width
        decoder, layers = decoder_of(network)
        self.layers = block_layers(len(layers), every=every, placement=placement)
        self.blocks = nn.ModuleList(
            GatedBlock(width=width, context_width=context_width, shape=shape) for _ in self.layers
        )
        self._view: _View | None = None
        self._network = [network]  # in a list, so that its parameters stay the language model's
        decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True)
        for number, index in enumerate(self.layers):
            hook = functools.partial(self._before_layer, number)
            layers[index].register_forward_pre_hook(hook, with_kwargs=True)

    @contextmanager
    def seeing(self, pictures: Pictures) -> Iterator[None]:
        """While this lasts, the language model sees these pictures.

        Generation may repeat each row for its beams and may go on with a cache: positions after those of
        `pictures.seen` see what the last of them sees.
        """
        visual = rearrange(pictures.tokens, "row picture token dim -> row (picture token) dim")
        self._view = _View(pictures=pictures, visual=visual)
        try:
            yield
        finally:
            # What a layer recomputes in the backward pass reads the pictures again.
            if not (torch.is_grad_enabled() and self._network[0].is_activation_checkpointing):
                self._view = None

    def _before_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find out which positions this pass holds and what each of them sees."""
        view = self._current()
        given = inspect.signature(decoder.forward).bind_partial(*args, **kwargs).arguments
        words = given["inputs_embeds"] if given.get("inputs_embeds") is not None else given["input_ids"]
        cache = given.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        rows, end = words.shape[0], past + words.shape[1]
        seen = view.pictures.seen
        if end > seen.shape[1]:
            seen = torch.cat([seen, seen[:, -1:].expand(-1, end - seen.shape[1])], dim=1)
        repeats, rest = divmod(rows, seen.shape[0])
        if rest:
            raise ValueError(
                f"the language model was given {rows} rows, but the pictures of {seen.shape[0]}; "
                "give it the batch that the pictures belong to"
            )
        num_pictures, num_tokens = view.pictures.tokens.shape[1:3]
        numbers = torch.arange(1, num_pictures + 1, device=seen.device).repeat_interleave(num_tokens)
        view.seen = (seen[:, past:end, None] == numbers).repeat_interleave(repeats, dim=0)

    def _before_layer(
        self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Run one block on the hidden states that a layer is about to get."""
        del layer
        view = self._current()
        if args:
            return (self._updated(number, args[0], view), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": self._updated(number, kwargs["hidden_states"], view)}

    def _updated(
        self, number: int, hidden: Float[Tensor, "row position width"], view: _View
    ) -> Float[Tensor, "row position width"]:
        block = self.blocks[number]
        assert isinstance(block, GatedBlock)
        if torch.is_grad_enabled():
            key, value = block.keys_and_values(view.visual)
        else:  # the steps of a generation read the same pictures
            if number not in view.kept:
                view.kept[number] = block.keys_and_values(view.visual)
            key, value = view.kept[number]
        repeats = hidden.shape[0] // key.shape[0]
        if repeats > 1:
            key, value = (part.repeat_interleave(repeats, dim=0) for part in (key, value))
        assert view.seen is not None
        return block(hidden, key, value, view.seen)

    def _current(self) -> _View:
        if self._view is None:
            raise RuntimeError(
                "the language model ran without pictures although its layers read them; "
                "call it through the vision-language model, or inside `fusion.seeing(pictures)`"
            )
        return self._view
