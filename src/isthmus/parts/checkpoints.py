"""Pretrained networks from Hugging Face folders or the hub: safetensors only, never code from a checkpoint."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from isthmus.core.errors import CheckpointError, lacks_memory
from isthmus.parts.four_bits import four_bit_settings, settle

JOINT_TYPES = ("llava", "llava_next", "blip-2")
"""Configurations of whole vision-language models, whose halves have configurations of their own."""

Kind = type[AutoModel | AutoModelForCausalLM | AutoModelForSeq2SeqLM | PreTrainedModel]
"""What is built: a network's class, or the choice of one by the configuration."""


@dataclass(frozen=True, kw_only=True)
class PretrainedSource:
    """Where weights come from.

    Attributes:
        name: A folder, or a name on the hub.
        revision: The commit on the hub, so that a name always means the same weights.
        random: Build the architecture with random weights (for tests and tables).
        local_only: Never ask the network.
        card: A JSON file with the architecture of this hub model; with random weights it is read instead of the
            checkpoint's own configuration, so that every machine builds the same.
        four_bit: Hold the matrices in 4 bits (see `four_bit_settings`); random weights stay as they are.
    """

    name: str
    revision: str | None = None
    random: bool = False
    local_only: bool = True
    card: Path | None = None
    four_bit: bool = False


def load_configuration(source: PretrainedSource) -> PretrainedConfig:
    """The network's configuration.

    Raises:
        OSError: The folder or name is not there.
        ValueError: The configuration names no architecture that is known.
        CheckpointError: The configuration is damaged.
    """
    if source.random and source.card is not None:
        return AutoConfig.for_model(**json.loads(source.card.read_text(encoding="utf-8")))
    with reading_files_of(source.name):
        return AutoConfig.from_pretrained(
            source.name, revision=source.revision, local_files_only=source.local_only
        )


def architecture_of(kind: Kind, source: PretrainedSource) -> PretrainedConfig:
    """The configuration of one network, also where its folder holds a LLaVA or a BLIP-2, of which it is a half.

    Raises:
        OSError: The folder or name is not there.
    """
    whole = load_configuration(source)
    if whole.model_type not in JOINT_TYPES:
        return whole
    is_language = kind in (AutoModelForCausalLM, AutoModelForSeq2SeqLM)
    return whole.text_config if is_language else whole.vision_config


def load_network(
    kind: Kind,
    source: PretrainedSource,
    *,
    config: PretrainedConfig | None = None,
    options: Mapping[str, bool] = MappingProxyType({}),
    renamed: Mapping[str, str] | None = None,
) -> PreTrainedModel:
    """A network in fp32 and eval mode.

    Weights that the network does not have (a classifier's head on an encoder, layers that are not built) are left
    aside; weights that it needs and the checkpoint lacks would stay random, so they are refused.

    Args:
        kind: What is built.
        source: Where weights come from.
        config: The architecture, where it is not the checkpoint's own.
        options: Further arguments of the network's constructor.
        renamed: Patterns in the checkpoint's names and what they become in the network's.

    Raises:
        OSError: The folder or name is not there, or holds no safetensors file.
        ValueError: The checkpoint lacks weights, or cannot be held in 4 bits.
        ImportError: 4-bit weights are asked for and bitsandbytes is not installed.
        CheckpointError: Files are damaged, or weights are of other sizes than the configuration says.
    """
    if source.random:
        architecture = config or architecture_of(kind, source)
        if issubclass(kind, PreTrainedModel):
            return kind(architecture, **options).eval()
        made = kind.from_config(architecture, dtype=torch.float32, **options)
        return cast(PreTrainedModel, made).eval()
    with quiet(), reading_files_of(source.name):
        # The two Auto classes and a network's own class share no type that says what they take.
        network, found = cast(Any, kind).from_pretrained(
            source.name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            revision=source.revision,
            local_files_only=source.local_only,
            **options,
            key_mapping=renamed,
            quantization_config=four_bit_settings() if source.four_bit else None,
            # Else a graphics card would be taken if there is one, whichever device the run is on.
            device_map={"": "cpu"} if source.four_bit else None,
        )
    if source.four_bit:
        settle(network, source.name)
    _check_sizes(source.name, found["mismatched_keys"])
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"the checkpoint '{source.name}' lacks {len(missing)} weights that a {type(network).__name__} needs, first "
            f"{missing[0]}; they would stay random: give a checkpoint of the right kind"
        )
    return cast(PreTrainedModel, network).eval()


def _check_sizes(name: str, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    other = [f"{key} is {tuple(there)}, expected {tuple(due)}" for key, there, due in sorted(mismatched)]
    if other:
        raise CheckpointError(
            f"the weights of '{name}' have other sizes than its config.json says: {'; '.join(other[:4])}"
            f"{f' and {len(other) - 4} more' if len(other) > 4 else ''}; restore both from one copy"
        )


@contextlib.contextmanager
def reading_files_of(name: str) -> Iterator[None]:
    """Say which checkpoint it is whose files transformers stumbles over.

    Raises:
        CheckpointError: They are damaged or contradict each other.
    """
    try:
        yield
    except (
        RuntimeError,
        TypeError,
        KeyError,
        AttributeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        if lacks_memory(error):
            raise
        why = first_line(error)
        raise CheckpointError(
            f"the files of '{name}' are damaged or do not fit each other ({type(error).__name__}: {why}); restore them "
            "from a copy, or give another checkpoint"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, without the advice that libraries put below it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(" :")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own loading bars and reports off the terminal; what matters in them is checked here."""
    verbosity = logging.get_verbosity()
    had_bar = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
