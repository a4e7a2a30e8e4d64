"""How fast the frozen encoder is: Hugging Face's MobileNetV2 as it comes, ours, and reading stored features.

Every speed is measured in a process of its own, because memory that the C library keeps cannot be given up again, and
in interleaved rounds, because other work on the machine slows some of them; the mean is shown, with the range.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from results import Page
from torch import Tensor
from transformers import AutoModel

from isthmus.config.paths import expand
from isthmus.core.devices import keep_freed_memory
from isthmus.core.sizes import Size
from isthmus.data.preprocessor import processor_of_folder
from isthmus.data.processor import PictureReader
from isthmus.data.sources.shards import Shards
from isthmus.parts.vision.pretrained import ConvolutionalEncoder
from isthmus.training.features import FeatureStore

_MODEL, _PHOTOS = "${shared}/models/mobilenet_v2", "${shared}/data/flickr8k/val-*.tar"
_ROUNDS = 2
_STORED = 256
_WAYS = {
    "plain": "Hugging Face's module, 32 at once",
    "plain kept": "the same, freed memory kept",
    "ours": "ours (folded, channels last), 8 at once",
    "ours kept": "the same, freed memory kept",
}


def main() -> int:
    """Measure one way in this process, or all in their own and write the page."""
    parser = argparse.ArgumentParser(
        description="Measure the frozen encoder and write docs/results/encoder.md."
    )
    parser.add_argument("--measure", choices=(*_WAYS, "difference", "stored"), default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.measure is None:
        return _make_page(given.threads)
    with torch.inference_mode():
        print(json.dumps(_measure(given.measure)))
    return 0


def _measure(what: str) -> dict[str, float]:
    match what:
        case "difference":
            return _difference()
        case "stored":
            return _stored()
        case _:
            if what.endswith("kept"):
                keep_freed_memory()
            encode, at_once = (_ours(), 8) if what.startswith("ours") else (_plain(), 32)
            return {"pictures_per_second": _speed(encode, _pixels(64), at_once)}


def _plain() -> Callable[[Tensor], Tensor]:
    """Pixels to the last feature map, by the module as `from_pretrained` gives it."""
    network = AutoModel.from_pretrained(expand(_MODEL), local_files_only=True).eval()
    return lambda pixels: network(pixels).last_hidden_state.flatten(2).transpose(1, 2)


def _ours() -> ConvolutionalEncoder:
    network = (
        AutoModel.from_pretrained(expand(_MODEL), local_files_only=True)
        .eval()
        .requires_grad_(requires_grad=False)
    )
    encoder = ConvolutionalEncoder(network=network, image_size=Size(224, 224), width=1280, stride=32)
    encoder.make_fast()
    return encoder


def _pixels(count: int) -> Tensor:
    photos, images = Shards(expand(_PHOTOS)), processor_of_folder(expand(_MODEL), resize="none")
    return torch.stack([images(photos.sample(row).images[0].picture()) for row in range(count)])


def _speed(encode: Callable[[Tensor], Tensor], pixels: Tensor, at_once: int) -> float:
    groups = list(pixels.split(at_once))
    encode(groups[0])
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < 2.0:
        done += len(encode(groups[done // at_once % len(groups)]))
    return done / spent


def _difference() -> dict[str, float]:
    """The largest difference of one number, as it is and as a share of the largest feature."""
    pixels = _pixels(32)
    ours, plain = _ours()(pixels), _plain()(pixels)
    largest = float((ours - plain).abs().max())
    return {"largest_difference": largest, "share_of_scale": largest / float(plain.abs().max())}


def _stored() -> dict[str, float]:
    """A photo to its features: decoded and encoded, against its bytes hashed and looked up."""
    keep_freed_memory()
    encoder, photos = _ours(), Shards(expand(_PHOTOS))
    images = processor_of_folder(expand(_MODEL), resize="none")
    refs = [photos.sample(row).images[0] for row in range(_STORED)]
    started = time.perf_counter()
    features = [
        encoder(torch.stack([images(ref.picture()) for ref in refs[at : at + 8]]))
        for at in range(0, _STORED, 8)
    ]
    live = _STORED / (time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder), {"bench": "encoder"}, dtype="float16")
        names = [ref.digest() for ref in refs]
        store.write(zip(names, torch.cat(features), strict=True), num_pictures=_STORED)
        reader = PictureReader(images=images, stored=store)
        started, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - started) < 2.0:
            assert reader(refs[done % _STORED]).features is not None
            done += 1
    return {"live": live, "stored": done / spent}


def _make_page(threads: int) -> int:
    load_before = os.getloadavg()[0]
    speeds: dict[str, list[float]] = {way: [] for way in _WAYS}
    for way, found in _rounds(threads):
        speeds[way].append(found["pictures_per_second"])
    difference, stored = (_in_its_own_process(what, threads) for what in ("difference", "stored"))
    mean = {way: statistics.mean(found) for way, found in speeds.items()}
    page = Page("The frozen encoder: MobileNetV2 at 224 x 224", "python bench/encoder.py")
    page.say(
        f"{threads} thread(s), fp32; load {load_before:.1f} before; mean of {_ROUNDS} interleaved rounds (range)."
    )
    page.table(
        ["pixels to features", "pictures a second", "ratio"],
        [
            [
                text,
                f"{mean[way]:.0f} ({min(speeds[way]):.0f} to {max(speeds[way]):.0f})",
                f"{mean[way] / mean['plain']:.1f}",
            ]
            for way, text in _WAYS.items()
        ],
    )
    page.say(
        f"Largest difference between ours and Hugging Face's on 32 photos: {difference['largest_difference']:.2g},",
        f"{difference['share_of_scale']:.2g} of the largest feature.",
    )
    page.table(
        ["photo file to features", "pictures a second", "ratio"],
        [
            ["decoded and encoded live (ours, 8 at once)", f"{stored['live']:.0f}", "1.0"],
            [
                "bytes hashed, features read from the store (pages in memory)",
                f"{stored['stored']:.0f}",
                f"{stored['stored'] / stored['live']:.1f}",
            ],
        ],
    )
    page.write(
        "encoder",
        {
            "threads": threads,
            "load_before": load_before,
            "pictures_per_second": speeds,
            "difference": difference,
        }
        | {"file_to_features": stored},
    )
    return 0


def _rounds(threads: int) -> Iterator[tuple[str, dict[str, float]]]:
    for _ in range(_ROUNDS):
        for way in _WAYS:
            yield way, _in_its_own_process(way, threads)


def _in_its_own_process(what: str, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"measuring '{what}' failed:\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
