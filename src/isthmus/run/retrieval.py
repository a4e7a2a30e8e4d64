"""Judging retrieval: photos by their captions and captions by their photos, beside the same with exchanged photos."""

from typing import Any

import numpy as np
import torch

from isthmus.core.errors import UsageError
from isthmus.core.randomness import seed_of
from isthmus.data.collate import collate
from isthmus.data.controls import picture_ids
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.processor import Row
from isthmus.data.samples import Source
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.retrieval import RECALLS, equal_captions, first_of_equal, rank_vectors
from isthmus.models.dual_encoder import DualEncoder
from isthmus.run.first_stage import Pretrained, judge_first_stage
from isthmus.run.load import LoadedRun

_ROWS_AT_ONCE, _TEXTS_AT_ONCE = 50, 250


def judge_retrieval(loaded: LoadedRun, source: Source, *, seed: int) -> dict[str, Any]:
    """R@1, R@5, R@10 and median rank both ways; ties count as misses, `equal_captions` is the share that must tie."""
    if isinstance(loaded.workshop.model, Pretrained):
        return judge_first_stage(loaded, loaded.workshop.model, source, seed=seed)
    images, texts, photo_of_text = embed_pairs(loaded, source)
    generator = np.random.default_rng(seed)
    recalls = tuple(k for k in RECALLS if k < len(source))
    ranking = rank_vectors(images, texts, photo_of_text)
    others = torch.as_tensor(shuffled(picture_ids(source, len(source)), seed_of(seed, "shuffled") % 2**32))
    exchanged = rank_vectors(images[others], texts, photo_of_text)
    best = torch.topk(texts[: len(texts)] @ images.T, k=min(5, len(source)), dim=1).indices
    captions = [caption for index in range(len(source)) for caption in source.sample(index).captions]
    return {
        "task": "retrieval",
        "metrics": ranking.to_json(generator=generator, recalls=recalls),
        "controls": {"shuffled": exchanged.to_json(generator=generator, recalls=recalls)},
        "n": len(source),
        "equal_captions": equal_captions(captions, photo_of_text.tolist()),
        "examples": [
            {
                "row": int(photo_of_text[text]),
                "query": captions[text],
                "hits": best[text].tolist(),
                "rank": int(ranking.text_to_image.ranks[text]),
            }
            for text in range(0, len(captions), 5)
        ],
    }


def compared(loaded: LoadedRun) -> tuple[DualEncoder, DualEncoderProcessor]:
    """The model and processor of a run that compares pictures and texts.

    Raises:
        UsageError: The run's model compares nothing.
    """
    model, processor = loaded.workshop.model, loaded.workshop.processor
    if not isinstance(model, DualEncoder) or not isinstance(processor, DualEncoderProcessor):
        raise UsageError(
            f"{loaded.directory.path} is no dual encoder, so pictures and texts cannot be compared"
        )
    return model, processor


def embed_pairs(loaded: LoadedRun, source: Source) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit vectors of all pictures and of all captions, and the picture of each caption.

    Raises:
        UsageError: The run's model compares nothing.
    """
    model, processor = compared(loaded)
    captions = [(index, caption) for index in range(len(source)) for caption in source.sample(index).captions]
    with loaded.number_format():
        images = embed_pictures(model, processor, source)
        texts = embed_texts(model, processor, [caption for _, caption in captions])
    return images, texts, torch.tensor([index for index, _ in captions])


@torch.inference_mode()
def embed_pictures(model: DualEncoder, processor: DualEncoderProcessor, source: Source) -> torch.Tensor:
    """One unit vector a picture, on the CPU."""
    device = next(model.parameters()).device
    images: list[torch.Tensor] = []
    for start in range(0, len(source), _ROWS_AT_ONCE):
        chosen = range(start, min(start + _ROWS_AT_ONCE, len(source)))
        rows = [processor.row(source.sample(index), rows="captions", choice=0) for index in chosen]
        vectors = model.image_vectors(collate(rows, pad_id=processor.pad_id).to(device))
        assert vectors is not None
        images.append(vectors.float().cpu())
    return torch.cat(images)


@torch.inference_mode()
def embed_texts(model: DualEncoder, processor: DualEncoderProcessor, texts: list[str]) -> torch.Tensor:
    """One unit vector a text, on the CPU; texts of the same tokens are read once, so that their vectors are equal."""
    device = next(model.parameters()).device
    token_ids = [processor.captions.encode_caption(text)[0] for text in texts]
    distinct, places = first_of_equal(map(tuple, token_ids)).unique(return_inverse=True)
    rows = [Row(sample_id=texts[place], token_ids=token_ids[place]) for place in distinct.tolist()]
    embedded: list[torch.Tensor] = []
    for start in range(0, len(rows), _TEXTS_AT_ONCE):
        chosen = rows[start : start + _TEXTS_AT_ONCE]
        vectors = model.text_vectors(collate(chosen, pad_id=processor.pad_id).to(device))
        assert vectors is not None
        embedded.append(vectors.float().cpu())
    return torch.cat(embedded)[places]
