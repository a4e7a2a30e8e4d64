"""Put the demo's two small encoders into the package: half precision, under 5 MB together.

    python scripts/ship_weights.py runs/scenes_vision runs/scenes_language

`make demo-from-scratch` makes the two runs; `isthmus demo` reads what this writes.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHIPPED = Path(__file__).resolve().parent.parent / "src" / "isthmus" / "weights"
MOST_BYTES = 5_000_000


def halve(source: Path, target: Path, prefix: str = "") -> int:
    """Write the tensors whose names start with `prefix` in float16; returns the file's size in bytes."""
    tensors = {name: tensor.half() for name, tensor in load_file(source).items() if name.startswith(prefix)}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata={"format": "pt"})
    return target.stat().st_size


def main(vision_run: Path, language_run: Path) -> None:
    """Ship both."""
    vision, language = SHIPPED / "scenes_vision", SHIPPED / "scenes_language"
    total = halve(vision_run / "final" / "model.safetensors", vision / "model.safetensors", "vision.")
    folder = language_run / "final" / "language"
    total += halve(folder / "model.safetensors", language / "model.safetensors")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, language / name)
    for run, target in ((vision_run, vision), (language_run, language)):
        shutil.copyfile(run / "recipe.yaml", target / "recipe.yaml")
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        stages = [
            {key: stage[key] for key in ("name", "steps", "loss", "seconds")} for stage in results["stages"]
        ]
        (target / "made_by.json").write_text(
            json.dumps({"stages": stages}, indent=1) + "\n", encoding="utf-8"
        )
    if total > MOST_BYTES:
        sys.exit(
            f"the shipped weights take {total:,} bytes; at most {MOST_BYTES:,} are allowed: make the models smaller"
        )
    print(f"shipped {total:,} bytes in {SHIPPED.name}/")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "give two finished runs: python scripts/ship_weights.py runs/scenes_vision runs/scenes_language"
        )
    main(Path(sys.argv[1]), Path(sys.argv[2]))
