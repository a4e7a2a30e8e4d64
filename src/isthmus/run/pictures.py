"""The pictures that controls show: real, blank, another row's, and the most similar other one."""

import logging

import torch
from einops import reduce

from isthmus.build.workshop import vision_of
from isthmus.core.errors import DataError, UsageError
from isthmus.core.randomness import seed_of
from isthmus.data.classes import ClassProcessor
from isthmus.data.controls import BlankPictures, ExchangedPictures, picture_ids
from isthmus.data.marked import everywhere
from isthmus.data.masked import MaskedImageProcessor, PictureProcessor
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.pictures import BadSample
from isthmus.data.processor import VisionLanguageProcessor
from isthmus.data.samples import Source
from isthmus.data.tally import Met, Tally
from isthmus.evaluation.controls import most_similar_other, shuffled
from isthmus.run.load import LoadedRun

SeesPictures = (
    VisionLanguageProcessor | DualEncoderProcessor | MaskedImageProcessor | PictureProcessor | ClassProcessor
)
"""Processors that prepare pictures."""

_PICTURES_AT_ONCE = 16
_LOG = logging.getLogger(__name__)


def usable(loaded: LoadedRun, source: Source) -> tuple[list[int], tuple[str, ...]]:
    """The rows whose pictures can be read, and why the others cannot.

    Raises:
        DataError: A row has no picture, or more than 1% of the rows cannot be used; the first are named.
        UsageError: The run's model looks at no pictures.
    """
    reader = loaded.workshop.processor
    if not isinstance(reader, SeesPictures):
        raise UsageError(f"{loaded.directory.path} holds a model that looks at no pictures")
    tally = Tally(num_samples=len(source), format=source.format)
    good: list[int] = []
    for index in range(len(source)):
        try:
            sample = source.sample(index)
            if not sample.images:
                raise DataError(
                    f"{sample.origin} has no picture; expected one in every row, as the controls exchange pictures"
                )
            for image in sample.images:
                reader.pictures(image)
        except BadSample as error:
            tally.add(Met(rows=(), bad=((index, str(error)),)))
            continue
        good.append(index)
    named = tally.report().named
    for reason in named:
        _LOG.warning("left out: %s", reason)
    return good, named


def with_controls(loaded: LoadedRun, source: Source, *, seed: int) -> tuple[dict[str, Source], list[str]]:
    """The source as it is and with replaced pictures, and the hash of each row's real picture.

    `wrong` is the nearest other picture by the cosine of mean patch tokens, the hardest exchange there is.
    """
    ids = picture_ids(source, len(source))
    reader = loaded.workshop.processor
    assert isinstance(reader, SeesPictures)
    vectors = mean_features(loaded, source)
    sources: dict[str, Source] = {
        "real": source,
        "blank": BlankPictures(source, reader.pictures.images, keep_sizes=reader.pictures.tiler is not None),
        "shuffled": ExchangedPictures(source, shuffled(ids, seed_of(seed, "shuffled") % 2**32).tolist()),
        "wrong": ExchangedPictures(source, most_similar_other(vectors, ids).tolist()),
    }
    return sources, ids


@torch.inference_mode()
def mean_features(loaded: LoadedRun, source: Source) -> torch.Tensor:
    """The mean patch token of each sample's first picture."""
    processor = loaded.workshop.processor
    assert isinstance(processor, SeesPictures)
    vision = vision_of(loaded.workshop.model)
    device = next(vision.parameters()).device
    vectors = []
    for start in range(0, len(source), _PICTURES_AT_ONCE):
        images = [
            source.sample(at).images[0] for at in range(start, min(start + _PICTURES_AT_ONCE, len(source)))
        ]
        pictures = [processor.pictures(image) for image in images]
        for picture in pictures:
            if picture.features is not None:
                patches = picture.features.unsqueeze(0)
            else:
                # Of a picture that is cut the thumbnail, which shows all of it.
                pixels = picture.looked_at[0]
                if vision.alpha is not None:
                    pixels = torch.cat([pixels, everywhere(processor.pictures.images)])
                patches = vision(pixels.unsqueeze(0).to(device)).cpu()
            vectors.append(reduce(patches, "1 patch dim -> dim", "mean"))
    return torch.stack(vectors)
