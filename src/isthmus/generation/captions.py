"""Captions of models that write beside their own encoder: transformers' generation over their cached layers."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers._typing import GenerativePreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from isthmus.core.batch import Batch
from isthmus.generation.decode import Decoding, before_end, configuration_of, drawing
from isthmus.nn.post_norm import KeysValues


@runtime_checkable
class WritesCaptions(Protocol):
    """A model that can write about pictures, word after word."""

    @property
    def caption_start(self) -> int:
        """The token that begins a caption."""
        ...

    @property
    def unwritten(self) -> tuple[int, ...]:
        """Tokens that no caption holds."""
        ...

    def look(self, batch: Batch) -> list[KeysValues]:
        """What captions can read of the batch's pictures in each layer."""
        ...

    def write_on(
        self,
        token_ids: Int[Tensor, "text token"],
        memory: Sequence[KeysValues],
        past: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """States of further words, and what later words can read of them in each layer."""
        ...

    def caption_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the token after each position."""
        ...


class _Writing(PreTrainedModel, GenerationMixin):
    """The words of some pictures' captions as transformers' generation asks for them."""

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, model: WritesCaptions, memory: Sequence[KeysValues]) -> None:
        super().__init__(PretrainedConfig.from_dict({"num_hidden_layers": len(memory)}))
        self.writer = cast(nn.Module, model)
        self.memory = memory

    def forward(
        self,
        input_ids: Int[Tensor, "row token"],
        past_key_values: DynamicCache | None = None,
        use_cache: bool = True,
        return_dict: bool = True,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token of every row."""
        del use_cache, return_dict
        model = cast(WritesCaptions, self.writer)
        hidden, own = model.write_on(input_ids, self.memory, _known(past_key_values))
        if past_key_values is not None:
            for layer, read in enumerate(own):
                past_key_values.update(read.keys, read.values, layer)
        logits = model.caption_logits(hidden[:, -1])
        return CausalLMOutputWithPast(logits=logits.unsqueeze(1), past_key_values=past_key_values)


def _known(cache: DynamicCache | None) -> list[KeysValues]:
    if cache is None or cache.get_seq_length() == 0:
        return []
    return [_read(layer) for layer in cache.layers if isinstance(layer, DynamicLayer)]


def _read(layer: DynamicLayer) -> KeysValues:
    assert layer.keys is not None
    assert layer.values is not None
    return KeysValues(layer.keys, layer.values)


@torch.no_grad()
def write_captions(
    model: WritesCaptions, batch: Batch, decoding: Decoding, *, end_id: int, pad_id: int, seed: int = 0
) -> list[list[int]]:
    """A caption of every picture of a batch.

    Args:
        model: The model, in eval mode.
        batch: Pictures; texts are not looked at.
        decoding: How tokens are chosen.
        end_id: Ends a caption; it is not part of what is returned.
        pad_id: Fills finished rows.
        seed: Drives `sample` only; the global generator is left as it was.

    Returns:
        Token ids of each caption.
    """
    with drawing(decoding, seed):
        memory = model.look(batch)
        first = torch.full((memory[0].keys.shape[0], 1), model.caption_start, device=memory[0].keys.device)
        configuration: GenerationConfig = configuration_of(decoding, (end_id,), pad_id)
        configuration.suppress_tokens = list(model.unwritten)
        if configuration.num_beams > 1:  # hypotheses of one picture stand side by side
            rows = torch.arange(len(first), device=first.device).repeat_interleave(configuration.num_beams)
            memory = [read.chosen(rows) for read in memory]
        network = cast(GenerativePreTrainedModel, _Writing(model, memory).eval())
        written = network.generate(input_ids=first, generation_config=configuration)
    return [before_end(row[1:], (end_id,)) for row in cast(Int[Tensor, "row token"], written).tolist()]
