"""The weights that a recipe's dual encoder starts from."""

from pathlib import Path

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.interop.dual_encoders import fill, read_weights_file
from isthmus.interop.hugging_face_dual import fill_from_hugging_face
from isthmus.models.dual_encoder import DualEncoder

_PATH = "model.weights"
_FILES = (".safetensors", ".npz", ".pt", ".pth", ".bin")


def fill_dual_encoder(model: DualEncoder, name: str, origin: Origin) -> None:
    """Put the weights of `model.weights` into a model that is built.

    Raises:
        RecipeError: The path does not exist.
        MachineError: The checkpoint is not on this machine.
        CheckpointError: It does not fit the model; all differences are listed.
    """
    if name.endswith(_FILES):
        fill(model, read_weights_file(Path(locate(name, path=_PATH))), name=name)
        return
    with reading(name, _PATH, origin):
        fill_from_hugging_face(model, source_of(name, None, origin, path=_PATH), name=name)
