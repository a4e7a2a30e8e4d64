"""What reading an encoder at a layer saves: ours, built up to it, against asking Hugging Face for all hidden states.

Each way runs in a process of its own, on random weights of the card's architecture, so that its peak memory is its own.
The baseline keeps every layer's output and picks one, which is how most published code does it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel

from isthmus.build.names import card_file
from isthmus.core.randomness import generator_of
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.vision.pretrained import load_vision_encoder

_WAYS = {"hidden_states": "whole network, output_hidden_states=True", "truncated": "built up to the layer"}


def main() -> int:
    """Measure one way in this process, or both in their own and print the table."""
    parser = argparse.ArgumentParser(description="Measure memory and time of truncated vision encoders.")
    parser.add_argument("--model", default="openai/clip-vit-large-patch14-336", help="a hub name with a card")
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="write a JSON file, too")
    parser.add_argument("--measure", choices=tuple(_WAYS), default=None)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.measure is not None:
        print(json.dumps(_measure(given)))
        return 0
    measured = {way: _in_a_process(way, given) for way in _WAYS}
    digests = {result["sum"] for result in measured.values()}
    print(f"{given.model}, layer {given.layer}, {given.batch} pictures, {given.threads} threads")
    print(f"{'way':<42} {'parameters':>12} {'peak MB':>8} {'grown MB':>8} {'s a batch':>9}")
    for way, result in measured.items():
        print(
            f"{_WAYS[way]:<42} {result['parameters']:>12,} {result['peak_mb']:>8.0f} "
            f"{result['grown_mb']:>8.0f} {result['seconds']:>9.3f}"
        )
    print("the outputs are equal" if len(digests) == 1 else f"the outputs DIFFER: {sorted(digests)}")
    if given.out is not None:
        given.out.write_text(
            json.dumps({"model": given.model, "layer": given.layer, "ways": measured}) + "\n"
        )
    return 0 if len(digests) == 1 else 1


def _in_a_process(way: str, given: argparse.Namespace) -> dict[str, float]:
    options = ["model", "layer", "batch", "rounds", "threads"]
    arguments = [f"--{name}={getattr(given, name)}" for name in options]
    ran = subprocess.run(
        [sys.executable, __file__, f"--measure={way}", *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


@torch.inference_mode()
def _measure(given: argparse.Namespace) -> dict[str, float]:
    """Parameters, peak memory of the process, what the passes added to it, and seconds a batch (the best round)."""
    source = PretrainedSource(name=given.model, random=True, card=card_file(given.model))
    config = load_configuration(source)
    vision = config.vision_config if config.model_type in ("clip", "siglip") else config
    if given.measure == "truncated":
        network = load_vision_encoder(source, "all", layer=given.layer, final_norm=False)
    else:
        network = load_network(AutoModel, source, config=vision)
    # The same numbers in the same layers both ways: drawn by name, since one network has more than the other.
    for name, parameter in network.named_parameters():
        parameter.normal_(std=0.02, generator=generator_of(0, name.removeprefix("network.")))
    built = _peak_mb()
    pixels = torch.randn(
        given.batch, 3, vision.image_size, vision.image_size, generator=generator_of(0, "pixels")
    )
    seconds = []
    for _ in range(given.rounds):
        started = time.perf_counter()
        if given.measure == "truncated":
            tokens = network(pixels)
        else:
            tokens = network(pixels, output_hidden_states=True).hidden_states[given.layer]
        seconds.append(time.perf_counter() - started)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_mb": _peak_mb(),
        "grown_mb": _peak_mb() - built,
        "seconds": min(seconds),
        "sum": float(tokens.double().sum()),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
