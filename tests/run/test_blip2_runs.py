"""Both stages of BLIP-2 in small, through the command line: the Q-Former alone, and before an encoder-decoder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from transformers import T5Config, T5ForConditionalGeneration

import isthmus
from isthmus.core.batch import IGNORED
from isthmus.data.collate import collate
from isthmus.data.processor import VisionLanguageProcessor
from isthmus.data.scenes import words
from isthmus.data.sources.scenes import SceneSource
from isthmus.data.vocabulary import train_tokenizer

QFORMER = "{kind: qformer, queries: 4, width: 16, layers: 2, heads: 2, ffn: 24}"
FIRST = (
    f"name: first\nseed: 3\n{small.DATA}model:\n  kind: qformer_pretrainer\n  vision: {small.VISION}\n"
    f"  connector: {QFORMER}\n  text: {{tokenizer: {{kind: trained, data: train, algorithm: word, vocabulary: 200}},\n"
    "    context: 40, positions: 40}\n  embed_dim: 8\nstages:\n"
    + small.stage(
        "represent",
        "connector, heads",
        "captions",
        objective="{contrastive: 1.0, matching: 1.0, captioning: 1.0}",
        label_smoothing="0.1",
        validation=small.VALIDATION,
    )
    + "evaluation: {task: retrieval, val: val, test: test}\n"
)


def encoder_decoder(folder: Path) -> Path:
    """A random T5 with a head of its own, and a word tokenizer."""
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=200, lower=True)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        )
        network = T5ForConditionalGeneration(config)
        network.lm_head.weight = torch.nn.Parameter(torch.randn(len(tokenizer), 16))
        network.save_pretrained(folder)
    return folder


def second(language: Path, rows: str = "captions") -> str:
    stages = small.stage("generate", "connector", rows, validation=small.VALIDATION)
    return (
        f"name: second\nseed: 3\n{small.DATA}model:\n  kind: vision_language_model\n  vision: {small.VISION}\n"
        f"  connector: {QFORMER}\n  language: {{kind: encoder_decoder, name: {language}, context: 64}}\n"
        f"stages:\n{stages}{small.QUESTIONS}"
    )


def test_the_first_stage_learns_by_three_objectives_and_is_judged_by_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small.isthmus("train", small.written(tmp_path / "first.yaml", FIRST), "--out", run, "--json")
    lines = [json.loads(line) for line in (run / "represent" / "metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if line["kind"] == "train")
    assert step["count.contrastive"] == 8
    assert step["count.matching"] == 24
    total = step["contrastive"] + step["matching"] + step["captioning"]
    assert step["loss"] == pytest.approx(total)
    validation = next(line for line in lines if line["kind"] == "validation")
    measured = ("text_to_image_r1", "image_to_text_r1", "matching_accuracy", "caption_accuracy")
    assert all(0 <= validation[f"val.{name}"] <= 1 for name in measured)
    judged = small.isthmus("evaluate", run, "--json").json
    assert judged["n"] == 24
    assert set(judged["metrics"]) == {
        "text_to_image",
        "image_to_text",
        "matched",
        "refused",
        "caption_accuracy",
    }
    assert judged["metrics"]["refused"]["n"] == 2 * judged["metrics"]["matched"]["n"] == 48
    scene = small.picture(tmp_path / "scene.png")
    assert set(small.isthmus("ask", run, scene, "--json").json) == {"answer", "tokens", "seconds"}
    asked = small.isthmus("ask", run, scene, "what color is the circle ?")
    assert asked.code == 2
    assert "qformer_pretrainer, which writes captions and answers nothing" in asked.sentence


@pytest.mark.parametrize("rows", ["captions", "conversations"])
def test_an_encoder_decoder_reads_pictures_and_answers(rows: str, tmp_path: Path) -> None:
    language, run = encoder_decoder(tmp_path / "language"), tmp_path / "run"
    file = small.written(tmp_path / "second.yaml", second(language, rows))
    outcome = small.isthmus("train", file, "--out", run, "--json")
    assert outcome.json["stages"][0]["steps"] == 4
    answer = small.isthmus(
        "ask", run, small.picture(tmp_path / "scene.png"), "what color is the circle ?", "--json"
    )
    assert set(answer.json) == {"answer", "tokens", "seconds"}
    judged = small.isthmus("evaluate", run, "--limit", "12", "--json").json
    assert judged["n"] == 12


def test_greedy_answers_are_those_that_the_decoder_finds_likeliest(tmp_path: Path) -> None:
    """One token after the other by hand, each from a whole forward pass, against generation with its cache."""
    language, run = encoder_decoder(tmp_path / "language"), tmp_path / "run"
    small.isthmus("train", small.written(tmp_path / "second.yaml", second(language)), "--out", run, "--json")
    loaded = isthmus.load(run)
    processor, model = loaded.workshop.processor, loaded.workshop.model
    assert isinstance(processor, VisionLanguageProcessor)
    source = SceneSource(split="test", num_samples=3, image_size=32)
    samples = [source.sample(at) for at in range(3)]
    rows = [processor.row(sample, rows="questions", choice=0, purpose="prompt") for sample in samples]
    batch = collate(rows, pad_id=processor.pad_id, side="left")
    assert batch.targets is None
    assert batch.decoder_ids is None
    written = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(loaded.decoding.max_new_tokens):
        there = torch.ones_like(written, dtype=torch.bool)
        hidden = model.encode(replace(batch, decoder_ids=written, decoder_mask=there)).hidden
        assert hidden is not None
        next_ids = model.token_logits(hidden[:, -1]).argmax(dim=1, keepdim=True)
        written = torch.cat([written, next_ids], dim=1)
    end = processor.codec.end_ids[-1]
    for answer, ids in zip(loaded.write(samples, rows="questions"), written[:, 1:].tolist(), strict=True):
        kept = ids[: ids.index(end)] if end in ids else ids
        assert answer.text == processor.codec.decode(kept)


def test_a_caption_is_split_at_a_drawn_place_and_nothing_is_lost(tmp_path: Path) -> None:
    language, run = encoder_decoder(tmp_path / "language"), tmp_path / "run"
    small.isthmus("train", small.written(tmp_path / "second.yaml", second(language)), "--out", run, "--json")
    processor = isthmus.load(run).workshop.processor
    assert isinstance(processor, VisionLanguageProcessor)
    sample = SceneSource(split="train", num_samples=1, image_size=32).sample(0)
    whole = processor.codec.content_ids(sample.captions[0])
    end = processor.codec.tokenizer.eos_token_id
    lengths = set()
    for choice in range(0, 40 * len(sample.captions), len(sample.captions)):
        row = processor.row(sample, rows="captions", choice=choice)
        assert row.token_ids is not None
        assert row.decoder_ids is not None
        given = row.token_ids[row.token_ids.count(processor.codec.placeholder_id) :]
        prefix = [index for index in given if index in whole]
        assert [*prefix, *row.decoder_ids[1:-1]] == whole
        assert row.token_ids[-1] == row.decoder_ids[-1] == end
        assert row.targets == [IGNORED, *row.decoder_ids[1:]]
        again = processor.row(sample, rows="captions", choice=choice)
        assert (again.token_ids, again.decoder_ids) == (row.token_ids, row.decoder_ids)
        lengths.add(len(prefix))
    assert min(lengths) == 0
    assert max(lengths) < len(whole)
    assert len(lengths) > len(whole) // 4
