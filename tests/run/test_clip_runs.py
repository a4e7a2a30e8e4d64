"""Whole runs on clips, by cross-attention and by splice: they train, answer, and are judged."""

from pathlib import Path

import pytest
import small

import isthmus
from isthmus.data.sources.scene_clips import SceneClips

DATA = small.DATA.replace("kind: scenes", "kind: clips, frames: 3")
RESAMPLER = (
    "{kind: perceiver_resampler, latents: 4, layers: 1, heads: 2, head_dim: 8, ffn_multiple: 1, frames: 3}"
)
WAYS = {
    "cross_attention": (
        "fusion: {kind: cross_attention, heads: 2, head_dim: 8, ffn_multiple: 1}",
        "flamingo",
        "connector, fusion, token_rows",
    ),
    "splice": ("fusion: {kind: splice}", "plain", "connector, language"),
}
PATHS = f"""paths:
    mapper: {{connector: {{kind: mapping_mlp, prefix: 1, hidden: 8}}}}
    resampler:
      connector: {RESAMPLER}
      fusion: {{kind: cross_attention, heads: 2, head_dim: 8, ffn_multiple: 1}}"""
"""As VisualTextModel has them: a token for each frame in front of the text, and latents of all frames beside it."""


@pytest.mark.parametrize("way", WAYS)
def test_a_run_on_clips_trains_answers_and_is_judged(way: str, tmp_path: Path) -> None:
    fusion, template, parts = WAYS[way]
    text = small.vision_language(
        small.OWN.replace("context: 64", f"context: 64, template: {template}"),
        stages=small.stage("align", parts, "captions", validation=small.VALIDATION)
        + small.stage("instruct", parts, "conversations"),
        data=DATA,
    ).replace("connector: {kind: mlp, depth: 2}", f"connector: {RESAMPLER}\n  {fusion}")
    run = tmp_path / "run"
    trained = small.isthmus("train", small.written(tmp_path / "clips.yaml", text), "--out", run, "--json")
    assert [stage["name"] for stage in trained.json["stages"]] == ["align", "instruct"]
    judged = small.isthmus("evaluate", run, "--json").json
    assert set(judged["kinds"]) == {"motion", "colour", "shape"}
    assert set(judged["controls"]["answers"]) == {"real", "blank", "shuffled", "wrong"}
    frame = tmp_path / "frame.png"
    SceneClips(split="test", num_samples=1, image_size=32).sample(0).images[0].frames[0].picture().save(frame)
    assert small.isthmus("ask", run, frame, "what shape is the moving thing ?", "--json").json["tokens"] >= 0


def test_a_clip_by_two_ways_has_a_prefix_of_a_token_a_frame(tmp_path: Path) -> None:
    text = small.vision_language(
        small.OWN.replace("context: 64", "context: 64, template: prefix"),
        stages=small.stage("join", "mapper, resampler, fusion", "captions"),
        data=DATA,
    ).replace("connector: {kind: mlp, depth: 2}", PATHS)
    recipe = small.written(tmp_path / "clips.yaml", text)
    assert small.isthmus("train", recipe, "--out", tmp_path / "run", "--json").code == 0
    workshop = isthmus.load(tmp_path / "run").workshop
    row = workshop.processor.row(workshop.source("train").sample(0), rows="captions", choice=0)
    assert row.tokens_per_image == (3,)
    assert row.token_ids is not None
    placeholder = workshop.model.placeholder_id
    assert [at for at, token in enumerate(row.token_ids) if token == placeholder] == [0, 1, 2]
    assert small.isthmus("evaluate", tmp_path / "run", "--json").code == 0


def test_clips_longer_than_a_model_takes_end_with_one_sentence(tmp_path: Path) -> None:
    text = small.vision_language(data=DATA)
    outcome = small.isthmus("train", small.written(tmp_path / "clips.yaml", text), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "'train' with clips of 3 frames" in outcome.err
