"""The feature store of a run: where it lies, what it is keyed by, and how pictures get in."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.config.recipe import StoredFeatures
from isthmus.config.vision import Vision
from isthmus.core.devices import Precision, number_format
from isthmus.data.images import ImageProcessor
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImageRef, Source
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.training.audit import digest_of
from isthmus.training.features import FeatureStore

_LOG = logging.getLogger(__name__)
_PICTURES_AT_ONCE = 8
"""Small, because a large batch of feature maps spills the cache (measured by `bench/encoder.py`)."""
_PICTURES_A_SHARD = 256


def cache_root() -> Path:
    """Where stores lie: `ISTHMUS_CACHE`, or `~/.cache/isthmus`."""
    return Path(os.environ.get("ISTHMUS_CACHE", "~/.cache/isthmus")).expanduser() / "features"


def open_store(
    settings: StoredFeatures, *, config: Vision, vision: VisionEncoder, images: ImageProcessor
) -> FeatureStore:
    """The store for exactly this encoder, these weights and this preprocessing."""
    key = {
        # Without defaults, so that a key which a later version adds does not make stored features worthless.
        "vision": {"kind": config.kind}
        | config.model_dump(mode="json", exclude={"name", "weights", "revision"}, exclude_defaults=True),
        "weights": {name: digest_of(tensor) for name, tensor in vision.state_dict().items()},
        "images": asdict(images),
    }
    return FeatureStore(cache_root(), key, dtype=settings.dtype, pictures_per_shard=_PICTURES_A_SHARD)


def fill_store(
    store: FeatureStore,
    sources: Iterable[Source],
    *,
    vision: VisionEncoder,
    images: ImageProcessor,
    precision: Precision = "fp32",
    check: Callable[[], None] = lambda: None,
) -> float:
    """Encode every picture that is not stored yet; what was stored stays after an interruption.

    Args:
        store: Where features go.
        sources: Whose pictures are needed.
        vision: The frozen encoder, on its device.
        images: Prepares pictures.
        precision: Number format of the encoder's matrix products.
        check: Called between batches; may raise to stop.

    Returns:
        Seconds spent.
    """
    started = time.monotonic()
    wanted: dict[str, ImageRef] = {}
    for source in sources:
        for index in range(len(source)):
            for image in source.sample(index).images:
                _note(image, store, wanted)
    if wanted:
        _LOG.info("storing the features of %s pictures in %s", f"{len(wanted):,}", store.directory)
        report = store.write(_encoded(wanted, vision, images, precision, check), num_pictures=len(wanted))
        seconds = time.monotonic() - started
        _LOG.info(
            "stored %s pictures (%.0f MB) in %.0f s, %.0f pictures a second",
            f"{report.written:,}",
            report.bytes / 1e6,
            seconds,
            report.written / max(seconds, 1e-9),
        )
    return time.monotonic() - started


def _note(image: ImageRef, store: FeatureStore, wanted: dict[str, ImageRef]) -> None:
    try:
        digest = image.digest()
    except BadSample as error:
        # The stream that meets this picture counts it and stops the run above its limit.
        _LOG.warning("left out of the feature store: %s", error)
    else:
        if digest not in store:
            wanted.setdefault(digest, image)


def _encoded(
    wanted: dict[str, ImageRef],
    vision: VisionEncoder,
    images: ImageProcessor,
    precision: Precision,
    check: Callable[[], None],
) -> Iterator[tuple[str, Float[Tensor, "patch dim"]]]:
    device = next(vision.parameters()).device
    with (
        ThreadPoolExecutor(1, "isthmus-decode") as pool,
        torch.inference_mode(),
        number_format(device, precision),
    ):
        items = list(wanted.items())
        groups = [tuple(items[at : at + _PICTURES_AT_ONCE]) for at in range(0, len(items), _PICTURES_AT_ONCE)]
        ahead = [pool.submit(_prepared, group, images) for group in groups[:2]]
        for number in range(len(groups)):
            check()
            names, pixels = ahead.pop(0).result()
            if number + 2 < len(groups):
                ahead.append(pool.submit(_prepared, groups[number + 2], images))
            if pixels is not None:
                yield from zip(names, vision(pixels.to(device)).cpu(), strict=True)


def _prepared(
    group: tuple[tuple[str, ImageRef], ...], images: ImageProcessor
) -> tuple[list[str], Float[Tensor, "image channel height width"] | None]:
    names, pixels = [], []
    for name, image in group:
        try:
            pixels.append(images(image.picture(), image.name))
        except BadSample as error:
            _LOG.warning("left out of the feature store: %s", error)
        else:
            names.append(name)
    return names, torch.stack(pixels) if pixels else None
