"""What reading an encoder at a layer saves: ours, built up to it, against asking Hugging Face for all hidden states.

Each way runs in a process of its own, on random weights of the card's architecture, so that its peak memory is its
own, and in interleaved rounds. Time is the processor's, which counts nothing while other work has the cores: by the
clock, a layer less of twelve was lost in what that work took. The baseline keeps every layer's output and picks one,
which is how most published code does it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import mean

import torch
from results import Page
from transformers import AutoModel

from isthmus.build.names import card_file
from isthmus.core.randomness import generator_of
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.vision.pretrained import load_vision_encoder

_WAYS = {"hidden_states": "whole network, output_hidden_states=True", "truncated": "built up to the layer"}
CASES = (
    ("openai/clip-vit-large-patch14-336", -2),
    ("google/siglip-base-patch16-224", -2),
    ("facebook/dinov2-base", 9),
    ("google/vit-base-patch16-224", 6),
    ("microsoft/beit-base-patch16-224", 3),
)
"""Encoders and the layer that is read: LLaVA-1.5's and, of the families that can be cut, deeper and deeper cuts."""
_SETTINGS = ("batch", "rounds", "threads")
_PROCESSES = 2
"""How often each way is measured."""
Case = dict[str, list[dict[str, float]]]
"""What was measured of one encoder, by way and process."""


def main() -> int:
    """Measure one way in this process, or both in their own and write the page."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    if given.measure is not None:
        print(json.dumps(_measure(given)))
        return 0
    found = {f"{model}, layer {layer}": _case(model, layer, given) for model, layer in CASES}
    equal = all(
        one["sum"] == case["truncated"][0]["sum"]
        for case in found.values()
        for way in case.values()
        for one in way
    )
    page = _page(found, given, are_equal=equal)
    if given.print:
        print(page.text())
    else:
        settings = {name: getattr(given, name) for name in _SETTINGS}
        page.write("truncation", settings | {"cases": found, "equal": equal})
    return 0 if equal else 1


def _case(model: str, layer: int, given: argparse.Namespace) -> Case:
    """Both ways in turn, each in a process of its own."""
    measured: Case = {way: [] for way in _WAYS}
    for _ in range(_PROCESSES):
        for way, found in measured.items():
            found.append(_in_a_process(way, model, layer, given))
    return measured


def _page(cases: dict[str, Case], given: argparse.Namespace, *, are_equal: bool) -> Page:
    page = Page("Vision encoders read at a layer", _command(given))
    page.say(
        f"Random weights, {given.batch} pictures a batch, fp32, {given.threads} thread(s). Each way ran in",
        f"{_PROCESSES} processes of its own, in turn; seconds are the processor's, which wait for nobody, of the",
        f"fastest of {given.rounds} batches in each, in brackets both; memory is the mean.",
    )
    page.table(
        [
            "encoder",
            "way",
            "parameters",
            "peak memory, MB",
            "of it by the batches, MB",
            "processor seconds a batch",
        ],
        [
            [
                name,
                _WAYS[way],
                f"{found[0]['parameters']:,.0f}",
                f"{mean(one['peak_mb'] for one in found):,.0f}",
                f"{mean(one['grown_mb'] for one in found):,.0f}",
                f"{min(one['seconds'] for one in found):.2f} "
                f"({', '.join(format(one['seconds'], '.2f') for one in found)})",
            ]
            for name, case in cases.items()
            for way, found in case.items()
        ],
    )
    page.say(
        "The sums of the outputs, in fp64, are equal."
        if are_equal
        else "**The outputs differ**, which they may not."
    )
    return page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure truncated vision encoders and write docs/results/truncation.md."
    )
    parser.add_argument("--model", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--layer", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="batches in each process; the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the page and write nothing")
    parser.add_argument("--measure", choices=tuple(_WAYS), default=None, help=argparse.SUPPRESS)
    return parser


def _command(given: argparse.Namespace) -> str:
    changed = [
        f"--{name}={getattr(given, name)}"
        for name in _SETTINGS
        if getattr(given, name) != _parser().get_default(name)
    ]
    return " ".join(["python bench/truncation.py", *changed])


def _in_a_process(way: str, model: str, layer: int, given: argparse.Namespace) -> dict[str, float]:
    arguments = [f"--{name}={getattr(given, name)}" for name in _SETTINGS]
    arguments += [f"--model={model}", f"--layer={layer}"]
    ran = subprocess.run(
        [sys.executable, __file__, f"--measure={way}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise SystemExit(f"measuring '{way}' failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


@torch.inference_mode()
def _measure(given: argparse.Namespace) -> dict[str, float]:
    """Parameters, peak memory of the process, what the passes added, processor seconds a batch (the best round)."""
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
        started = time.process_time()
        if given.measure == "truncated":
            tokens = network(pixels)
        else:
            tokens = network(pixels, output_hidden_states=True).hidden_states[given.layer]
        seconds.append(time.process_time() - started)
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
