"""Make a `.safetensors` file of OpenAI's or open_clip's CLIP, which a recipe then names as `model.weights`.

    python scripts/convert_clip.py ViT-B-32.pt ViT-B-32.safetensors

The file is opened in another process with limits, because opening it can run code; see `isthmus.interop.conversion`.
"""

import sys
from pathlib import Path

from isthmus.core.errors import IsthmusError
from isthmus.interop.conversion import convert

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "give a file and what it becomes: python scripts/convert_clip.py ViT-B-32.pt ViT-B-32.safetensors"
        )
    try:
        number = convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except IsthmusError as error:
        sys.exit(f"convert_clip: {error}")
    print(f"{sys.argv[2]}: {number} tensors")
