"""A language model of this machine as a writer: what it writes is transformers' own continuation of the same chat."""

import json
from pathlib import Path

import pytest
import small
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isthmus.config.instructions import WriterOptions
from isthmus.core.options import RunOptions
from isthmus.curation.instructions.facts import scene_facts
from isthmus.curation.instructions.writer import Message, Request
from isthmus.data.scenes import Scenes
from isthmus.run.curation_writers import local_writer

CHAT = (
    Message(role="user", content="a red square at the top left"),
    Message(role="assistant", content="red"),
    Message(role="user", content="a blue ring"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.language_folder(tmp_path_factory.mktemp("local") / "language")


def request(chat: tuple[Message, ...] = CHAT) -> Request:
    (facts,) = scene_facts(Scenes(), 1)
    return Request(facts=facts, kind="detail", messages=chat)


def test_it_continues_the_chat_as_transformers_does(folder: Path) -> None:
    by = WriterOptions(local=folder, max_tokens=9, temperature=0.0)
    writer = local_writer(by, RunOptions(device="cpu"))
    reply = writer.write(request())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    first, answer, second = (tokenizer(one.content, add_special_tokens=False)["input_ids"] for one in CHAT)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    prompt = torch.tensor([[start, *first, *answer, end, *second]])
    with torch.no_grad():
        out = network.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
    new = [token for token in out[0, prompt.shape[1] :].tolist() if token != end]
    assert (reply.tokens_in, reply.refused) == (prompt.shape[1], "")
    assert reply.tokens_out == len(new)
    assert reply.text == tokenizer.decode(new)


def test_drawing_depends_on_the_request_alone(folder: Path) -> None:
    by = WriterOptions(local=folder, max_tokens=12, temperature=1.0)
    first, again = (local_writer(by, RunOptions(device="cpu")) for _ in range(2))
    first.write(request(CHAT[:1]))
    assert first.write(request()) == again.write(request())


def test_a_chat_beyond_the_context_is_refused_and_listed(folder: Path) -> None:
    writer = local_writer(WriterOptions(local=folder), RunOptions(device="cpu"))
    long = (Message(role="user", content="red " * 5000),)
    reply = writer.write(request(long))
    assert (reply.text, "context" in reply.refused) == ("", True)


def test_a_model_that_writes_no_json_ends_with_3_and_a_list(runs: small.Runs, tmp_path: Path) -> None:
    run, out = runs["alone"][0], tmp_path / "out"
    ended = small.isthmus(
        "curate", "instruct", "scenes", "--limit", "2", "--local", run, "--out", out, "--kinds", "detail"
    )
    assert ended.code == 3
    assert "none of 2 replies could be kept" in ended.sentence
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    # The shipped prompts are longer than the 64 tokens that this model reads.
    assert [reject["reason"] for reject in rejects] == ["refused by the writer"] * 2


def test_a_run_that_reads_pictures_is_refused(runs: small.Runs, tmp_path: Path) -> None:
    run = runs["own"][0]
    ended = small.isthmus("curate", "instruct", "scenes", "--local", run, "--out", tmp_path / "out")
    assert (ended.code, "expected a language model alone" in ended.sentence) == (2, True)
    assert not (tmp_path / "out").exists()
