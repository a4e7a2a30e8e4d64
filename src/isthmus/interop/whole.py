"""What other projects saved: a whole model through transformers' own loading, or a file of tensors."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from isthmus.core.errors import CheckpointError
from isthmus.parts.checkpoints import PretrainedSource, quiet, reading_files_of

_BUFFERS = (".position_ids", ".inv_freq")
"""Constants that older versions of transformers saved beside weights."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read as safetensors ({error}); convert it, or copy it again"
        ) from error


def read_whole(source: PretrainedSource, kind: type[PreTrainedModel]) -> PreTrainedModel:
    """The network of a Hugging Face folder with every weight from the checkpoint.

    Args:
        source: The folder or hub name.
        kind: The class that transformers has for it.

    Raises:
        OSError: The folder is not there, or holds no safetensors file.
        CheckpointError: A weight is missing, unknown or of another shape than the folder's own configuration says.
    """
    # As loose as the library's own signatures, which do not know what `output_loading_info` returns.
    loader: Any = kind
    with quiet(), reading_files_of(source.name):
        network, info = loader.from_pretrained(
            source.name,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            revision=source.revision,
            local_files_only=source.local_only,
        )
    wrong = [f"missing {key}" for key in info["missing_keys"]]
    wrong += [f"unknown {key}" for key in info["unexpected_keys"] if not key.endswith(_BUFFERS)]
    wrong += [
        f"{key} is {tuple(found)}, expected {tuple(due)}" for key, found, due in info["mismatched_keys"]
    ]
    wrong += list(info["error_msgs"])
    if wrong:
        raise CheckpointError(
            f"{source.name} does not hold the weights that its config.json describes: {'; '.join(sorted(wrong))}; "
            "copy it again"
        )
    return cast(PreTrainedModel, network)
