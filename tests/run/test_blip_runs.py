"""BLIP in small, through the command line: it learns by three objectives, resumes, is judged, matches and writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from safetensors import safe_open

import isthmus
from isthmus.core.errors import UsageError
from isthmus.data.collate import collate
from isthmus.data.sources.scenes import SceneSource
from isthmus.models.med import Med
from isthmus.run.first_stage import look
from isthmus.run.matching import match_probabilities
from isthmus.run.reranking import reranked

MED = (
    f"model:\n  kind: med\n  vision: {small.VISION.replace('}', ', features: all}')}\n"
    "  text: {tokenizer: {kind: trained, data: train, algorithm: word, vocabulary: 200}, context: 40, positions: 40,\n"
    "    width: 16, layers: 2, heads: 2, ffn: 24}\n  embed_dim: 8\n  momentum: {queue: 20, decay: 0.9}\n"
)
BLIP = (
    f"name: blip\nseed: 3\n{small.DATA}{MED}stages:\n"
    + small.stage(
        "pretrain",
        "vision, text, encoder, decoder, heads",
        "captions",
        objective="{contrastive: 1.0, matching: 1.0, captioning: 1.0}",
        label_smoothing="0.1",
        validation=small.VALIDATION,
    )
    + "evaluation: {task: retrieval, val: val, test: test, rerank: 5, decoding: {max_new_tokens: 6}}\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    small.isthmus("train", small.written(folder / "blip.yaml", BLIP), "--out", folder / "run", "--json")
    return folder / "run"


def tensors_of(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as stored:
        return set(stored.keys())


def test_slow_copies_are_in_checkpoints_and_not_handed_on(run: Path) -> None:
    state = tensors_of(run / "pretrain" / "checkpoints" / "step-4" / "tensors.safetensors")
    assert "model/momentum.texts.vectors" in state
    assert "model/momentum.encoder/attentions/0/query/weight" in state
    for folder in (run / "pretrain", run / "final"):
        assert not [name for name in tensors_of(folder / "model.safetensors") if "momentum" in name]


def test_a_killed_run_goes_on_bit_for_bit_with_its_copies_and_queues(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.written(tmp_path / "blip.yaml", BLIP)
    with monkeypatch.context() as patched:
        small.Killer("pretrain", 3).install(patched)
        assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 130
    small.isthmus("train", recipe, "--out", tmp_path / "run", "--resume", "--json")
    assert small.final_hash(tmp_path / "run") == small.final_hash(run)
    ours, theirs = (
        (one / "pretrain" / "checkpoints" / "step-4" / "tensors.safetensors").read_bytes()
        for one in (tmp_path / "run", run)
    )
    assert ours == theirs


def test_it_is_judged_by_all_that_it_learns(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if line["kind"] == "train")
    assert (step["count.contrastive"], step["count.matching"]) == (8, 24)
    assert step["loss"] == pytest.approx(step["contrastive"] + step["matching"] + step["captioning"])
    judged = small.isthmus("evaluate", run, "--json").json
    scenes = SceneSource(split="test", num_samples=24, image_size=32)
    first = [scenes.sample(row).captions[0] for row in range(24)]
    assert judged["equal_captions"] == sum(first.count(caption) > 1 for caption in first) / 24
    both = {"text_to_image", "image_to_text"}
    assert set(judged["metrics"]) == {
        *both,
        *(f"{way}_reranked" for way in both),
        "matched",
        "refused",
        "caption_accuracy",
    }
    captions = small.isthmus(
        "evaluate", run, "evaluation.task=captioning", "evaluation.rerank=null", "--json"
    )
    assert set(captions.json["controls"]) >= {"blank", "shuffled", "wrong"}
    assert captions.json["metrics"]["cider"]["n"] == 24
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["evaluation"]["test"] == judged
    assert results["other_tasks"]["test"]["captioning"]["metrics"] == captions.json["metrics"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Retrieval on test" in page
    assert "Captions on test" in page


def test_it_writes_captions_and_answers_nothing(run: Path, tmp_path: Path) -> None:
    scene = small.picture(tmp_path / "scene.png")
    said = small.isthmus("ask", run, scene, "--json").json
    assert 0 < said["tokens"] <= 6
    asked = small.isthmus("ask", run, scene, "what color is the circle ?")
    assert asked.code == 2
    assert "writes captions and answers nothing" in asked.sentence


def test_how_likely_a_text_belongs_does_not_depend_on_its_neighbours(run: Path) -> None:
    loaded = isthmus.load(run)
    model = loaded.workshop.model
    assert isinstance(model, Med)
    source = SceneSource(split="test", num_samples=5, image_size=32)
    pairs = [(one.images[0], one.captions[at % 2]) for at, one in enumerate(map(source.sample, range(5)))]
    together = match_probabilities(loaded, pairs)
    alone = [match_probabilities(loaded, [pair], batch_size=1)[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=5e-3)  # bf16, where the machine has it
    with torch.no_grad():
        model.heads.match.bias.copy_(torch.tensor([0.0, 100.0]))
    assert match_probabilities(loaded, pairs) == pytest.approx([1.0] * 5)
    captioner = replace(loaded, workshop=replace(loaded.workshop, model=torch.nn.Identity()))
    with pytest.raises(UsageError, match="does not match pictures with texts"):
        match_probabilities(captioner, pairs)


def test_only_the_best_of_each_query_are_ranked_again(run: Path) -> None:
    """Against a loop that asks the match for every pair; a head that always says the same keeps every rank."""
    loaded = isthmus.load(run)
    model, processor = loaded.workshop.model, loaded.workshop.processor
    assert isinstance(model, Med)
    source = SceneSource(split="test", num_samples=6, image_size=32)
    rows = [processor.row(source.sample(at), rows="captions", choice=0) for at in range(6)]
    batches = [collate(rows[at : at + 3], pad_id=processor.pad_id) for at in (0, 3)]
    whole = collate(rows, pad_id=processor.pad_id)
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.heads.match.weight.mul_(30)
        encoded = model.encode(whole)
        pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
        said = model.match(encoded, whole, images=pairs[:, 0], texts=pairs[:, 1])[:, 1].view(6, 6)
    found = reranked(model, lambda: batches, scores, first=torch.arange(6), best=2)
    for text in range(6):
        best = scores[:, text].topk(2).indices.tolist()
        order = sorted(best, key=lambda image: -float(scores[image, text] + said[image, text]))
        order += [image for image in scores[:, text].argsort(descending=True).tolist() if image not in best]
        assert found.text_to_image.ranks[text] == order.index(text) + 1
    for image in range(6):
        best = scores[image].topk(2).indices.tolist()
        order = sorted(best, key=lambda text: -float(scores[image, text] + said[image, text]))
        order += [text for text in scores[image].argsort(descending=True).tolist() if text not in best]
        assert found.image_to_text.ranks[image] == order.index(image) + 1


def test_equal_captions_of_two_pictures_tie_and_miss(run: Path) -> None:
    """Texts 1 and 4 are the same words in batches of other lengths; their scores and matches are equal in every bit."""
    loaded = isthmus.load(run)
    model, processor = loaded.workshop.model, loaded.workshop.processor
    assert isinstance(model, Med)
    source = SceneSource(split="test", num_samples=6, image_size=32)
    told = ["a red star .", "a ring .", "a star .", source.sample(0).captions[0], "a ring .", "a red ring ."]
    rows = [
        processor.row(replace(source.sample(at), captions=(text,)), rows="captions", choice=0)
        for at, text in enumerate(told)
    ]
    batches = [collate(rows[at : at + 3], pad_id=processor.pad_id) for at in (0, 3)]
    assert batches[0].token_ids is not None
    assert batches[1].token_ids is not None
    assert batches[0].token_ids.shape[1] < batches[1].token_ids.shape[1]
    with torch.no_grad():
        model.heads.match.weight.mul_(30)
        found = look(model, batches)
    assert found.first.tolist() == [0, 1, 2, 3, 1, 5]
    assert torch.equal(found.scores[:, 1], found.scores[:, 4])
    for best in (2, 6):
        again = reranked(model, lambda: batches, found.scores, first=found.first, best=best)
        for ranking in (found.retrieval, again):
            first, second = ranking.text_to_image.ranks[[1, 4]].tolist()
            assert first != second
            assert (ranking.image_to_text.ranks[[1, 4]] > 1).all()
