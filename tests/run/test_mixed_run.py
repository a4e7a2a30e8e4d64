"""A run on a mixture: pictures and words in batches of their own, with a recomputed language model."""

import json
from pathlib import Path

import small

MIX = (
    "  mix: {kind: mixture, parts: {train: {rows: questions}, told: {rows: text_answers, cap: 20}, gqa: {}}}\n"
    "  told: {kind: scenes, split: train, num_samples: 40, image_size: 32, seed: 1}\n"
)


def gqa(folder: Path) -> str:
    small.picture(folder / "7.jpg")
    rows = {f"0{at}": {"question": "what is it ?", "imageId": "7", "answer": "circle"} for at in range(4)}
    (folder / "gqa.json").write_text(json.dumps(rows), encoding="utf-8")
    return f"  gqa: {{kind: gqa, questions: {folder / 'gqa.json'}, images: {folder}}}\n"


def recipe(folder: Path, name: str, **changes: str) -> Path:
    stages = small.stage(
        "instruct", "connector, language", "conversations", data="mix", group_by_modality="true", **changes
    )
    text = small.vision_language(stages=stages, data=small.DATA + MIX + gqa(folder))
    return small.written(folder / f"{name}.yaml", text)


def test_a_mixture_trains_grouped_and_recomputing_changes_nothing(tmp_path: Path) -> None:
    hashes = []
    for name, parts in (("kept", "[]"), ("recomputed", "[language]")):
        run = tmp_path / name
        said = small.isthmus(
            "train", recipe(tmp_path, name, recompute=parts, steps="6"), "--out", run, "--json"
        ).json
        assert said["stages"][0]["steps"] == 6
        report = json.loads((run / "instruct" / "data.json").read_text())
        assert (report["rows"], report["skipped"]) == (48, 0)
        hashes.append(small.final_hash(run))
    assert hashes[0] == hashes[1]
