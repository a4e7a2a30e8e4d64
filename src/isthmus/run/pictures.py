"""The pictures that controls show: real, blank, another row's, and the most similar other one."""

import torch
from einops import reduce

from isthmus.build.workshop import vision_of
from isthmus.core.randomness import seed_of
from isthmus.data.controls import BlankPictures, ExchangedPictures, picture_ids
from isthmus.data.processor import DualEncoderProcessor, VisionLanguageProcessor
from isthmus.data.samples import Source
from isthmus.evaluation.controls import most_similar_other, shuffled
from isthmus.run.load import LoadedRun

_PICTURES_AT_ONCE = 16


def with_controls(loaded: LoadedRun, source: Source, *, seed: int) -> tuple[dict[str, Source], list[str]]:
    """The source as it is and with replaced pictures, and the hash of each row's real picture.

    `wrong` is the nearest other picture by the cosine of mean patch tokens, the hardest exchange there is.
    """
    ids = picture_ids(source, len(source))
    reader = loaded.workshop.processor
    assert isinstance(reader, VisionLanguageProcessor | DualEncoderProcessor)
    vectors = mean_features(loaded, source)
    sources: dict[str, Source] = {
        "real": source,
        "blank": BlankPictures(source, reader.pictures.images),
        "shuffled": ExchangedPictures(source, shuffled(ids, seed_of(seed, "shuffled") % 2**32).tolist()),
        "wrong": ExchangedPictures(source, most_similar_other(vectors, ids).tolist()),
    }
    return sources, ids


@torch.inference_mode()
def mean_features(loaded: LoadedRun, source: Source) -> torch.Tensor:
    """The mean patch token of each sample's first picture."""
    processor = loaded.workshop.processor
    assert isinstance(processor, VisionLanguageProcessor | DualEncoderProcessor)
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
                assert picture.pixels is not None
                patches = vision(picture.pixels.unsqueeze(0).to(device)).cpu()
            vectors.append(reduce(patches, "1 patch dim -> dim", "mean"))
    return torch.stack(vectors)
