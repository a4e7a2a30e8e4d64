"""Hugging Face folders whose weights fit a dual encoder that would compute something else with them are refused."""

from dataclasses import dataclass

import pytest
from dual_twins import hugging_face_clip, hugging_face_siglip, own_clip, own_siglip

from isthmus.build.checkpoints import Origin
from isthmus.build.dual_weights import fill_dual_encoder
from isthmus.core.errors import CheckpointError
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.transformer import TransformerShape


@dataclass(frozen=True)
class Folders:
    """Where the twins lie."""

    clip: str
    siglip: str


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp("folders")
    hugging_face_clip().save_pretrained(place / "clip")
    hugging_face_siglip().save_pretrained(place / "siglip")
    return Folders(clip=str(place / "clip"), siglip=str(place / "siglip"))


def with_shape(model: DualEncoder, side: str, **changes: object) -> DualEncoder:
    """The model as if it had been built with other sizes, none of which changes a name or shape of a weight."""
    transformer = getattr(model, side).transformer
    shape: TransformerShape = transformer.shape
    transformer.shape = TransformerShape(**vars(shape) | changes)
    return model


def test_the_other_gelu_is_refused_on_both_sides(folders: Folders) -> None:
    with pytest.raises(CheckpointError) as refused:
        fill_dual_encoder(own_clip("gelu"), folders.clip, Origin())
    assert str(refused.value) == (
        f"{folders.clip} computes something else than the model: vision.activation is quick_gelu, the model has gelu; "
        "text.activation is quick_gelu, the model has gelu; write the checkpoint's values into the recipe"
    )


@pytest.mark.parametrize(
    ("side", "changes", "said"),
    [
        ("vision", {"num_heads": 8}, r"vision\.heads is 4, the model has 8;"),
        ("text", {"num_heads": 6}, r"text\.heads is 3, the model has 6;"),
        ("text", {"norm_eps": 1e-6}, r"text\.norm_eps is 1e-05, the model has 1e-06;"),
    ],
)
def test_sizes_that_no_weight_shows_are_compared(
    folders: Folders, side: str, changes: dict[str, object], said: str
) -> None:
    fill_dual_encoder(own_clip(), folders.clip, Origin())
    with pytest.raises(CheckpointError, match=f"something else than the model: {said}"):
        fill_dual_encoder(with_shape(own_clip(), side, **changes), folders.clip, Origin())


def test_siglip_reads_its_last_place_through_the_tanh_gelu(folders: Folders) -> None:
    fill_dual_encoder(own_siglip(), folders.siglip, Origin())
    other = with_shape(own_siglip(), "vision", activation="gelu")
    other.text.pool = "first"
    with pytest.raises(
        CheckpointError,
        match=r"vision\.activation is tanh_gelu, the model has gelu; text\.pool is last, the model has first",
    ):
        fill_dual_encoder(other, folders.siglip, Origin())


def test_clip_reads_cls(folders: Folders) -> None:
    other = own_clip()
    other.vision.features = "patches"
    other.image_head.pooling = "mean"
    with pytest.raises(
        CheckpointError,
        match=r"image_head\.pooling is first, the model has mean; vision\.features is cls, the model has patches",
    ):
        fill_dual_encoder(other, folders.clip, Origin())
