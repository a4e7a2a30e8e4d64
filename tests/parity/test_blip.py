"""BLIP against transformers' own models with the same random weights, read from the folders that it writes.

Measured in float32 on one thread: MEASURED. The bound for all is BOUND, as other machines sum in other orders.
"""

from pathlib import Path

import blip_twins
import pytest
import torch
from blip_twins import DEC, ENC, WORDS
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.errors import CheckpointError
from isthmus.core.protocols import Progress
from isthmus.generation.captions import write_captions
from isthmus.generation.decode import Decoding
from isthmus.interop.blip import load_blip, load_blip_file
from isthmus.objectives.captioning import Captioning
from isthmus.objectives.representations import similarities
from isthmus.parts.checkpoints import PretrainedSource

BOUND = 5e-6


def pictures(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, 28, 28, generator=torch.Generator().manual_seed(3))


def texts(first: int) -> tuple[torch.Tensor, torch.Tensor]:
    token_ids = torch.randint(3, DEC, (3, 6), generator=torch.Generator().manual_seed(4))
    token_ids[:, 0] = first
    there = torch.ones(3, 6, dtype=torch.bool)
    there[1, 4:] = False
    return token_ids, there


def batch_of(first: int = 1) -> Batch:
    token_ids, there = texts(first)
    return Batch(sample_ids=("a", "b", "c"), pixels=pictures(), token_ids=token_ids, attention_mask=there)


def test_captions_and_their_loss_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    ours = blip_twins.med()
    assert set(load_blip(ours, PretrainedSource(name=str(tmp_path)))) == {"vision", "text", "decoder"}
    token_ids, there = texts(DEC)
    labels = token_ids.masked_fill(~there, IGNORED)
    said = theirs(pixel_values=pictures(), input_ids=token_ids, attention_mask=there.long(), labels=labels)
    with torch.no_grad():
        encoded = ours.encode(batch_of())
        logits = ours.caption_logits(ours.caption(encoded, batch_of()).flatten(0, 1)).unflatten(0, (3, 6))
        term = Captioning(ours, label_smoothing=theirs.text_decoder.label_smoothing)(
            encoded, batch_of(), Progress(step=0, num_steps=1)
        )["captioning"]
    torch.testing.assert_close(logits[there], said.logits[there], rtol=0, atol=BOUND)
    torch.testing.assert_close(term.sum / term.count, said.loss, rtol=0, atol=BOUND)
    assert logits.std() > 0.2


def test_contrast_and_match_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = blip_twins.twin(BlipForImageTextRetrieval, tmp_path)
    ours = blip_twins.med()
    assert set(load_blip(ours, PretrainedSource(name=str(tmp_path)))) == {
        "vision",
        "text",
        "encoder",
        "heads",
    }
    with torch.no_grad():
        encoded = ours.encode(batch_of())
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        scores = similarities(encoded.image_views, encoded.text_vectors)
        every = torch.arange(3)
        matched = ours.match(encoded, batch_of(), images=every, texts=every)
        mask = batch_of().attention_mask
        assert mask is not None
        said = {"pixel_values": pictures(), "attention_mask": mask.long()}
        contrast = theirs(input_ids=texts(1)[0], use_itm_head=False, **said).itm_score
        match = theirs(input_ids=texts(ENC)[0], **said).itm_score
    torch.testing.assert_close(scores, contrast, rtol=0, atol=BOUND)
    torch.testing.assert_close(matched, match, rtol=0, atol=BOUND)
    assert scores.std() > 0.05
    assert matched.std() > 0.05


@pytest.mark.parametrize(
    ("decoding", "told"),
    [
        (Decoding(max_new_tokens=7), {}),
        (Decoding(method="beam", beams=3, max_new_tokens=7), {"num_beams": 3}),
        (Decoding(method="sample", top_p=0.9, max_new_tokens=7), {"do_sample": True, "top_p": 0.9}),
    ],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_captions_are_written_as_transformers_writes_them(
    decoding: Decoding, told: dict, use_cache: bool, tmp_path: Path
) -> None:
    theirs = blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    ours = blip_twins.med().eval()
    load_blip(ours, PretrainedSource(name=str(tmp_path)))
    chosen = Decoding(**(vars(decoding) | {"use_cache": use_cache}))
    written = write_captions(ours, batch_of(), chosen, end_id=2, pad_id=0, seed=5)
    torch.manual_seed(5)
    patches = theirs.vision_model(pictures()).last_hidden_state
    said = theirs.text_decoder.generate(
        input_ids=torch.full((3, 1), DEC),
        encoder_hidden_states=patches,
        encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
        suppress_tokens=[DEC, ENC],
        max_new_tokens=7,
        eos_token_id=2,
        pad_token_id=0,
        top_k=0 if told.get("do_sample") else None,
        **told,
    )
    assert written == [row[1 : row.index(2)] if 2 in row else row[1:] for row in said.tolist()]
    assert len({tuple(row) for row in written}) > 1


def official(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The keys of BLIP's own code for a captioner's tensors of transformers."""
    words = (
        ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
        ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
        ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
        ("vision_model.encoder.layers", "visual_encoder.blocks"),
        ("self_attn.qkv", "attn.qkv"),
        ("self_attn.projection", "attn.proj"),
        ("layer_norm", "norm"),
        ("vision_model.post_layernorm", "visual_encoder.norm"),
    )
    renamed = {}
    for name, tensor in ours.items():
        for theirs, here in words:
            name = name.replace(theirs, here)
        renamed[name] = tensor.contiguous()
    return renamed


def test_the_keys_of_blips_own_code_are_read(tmp_path: Path) -> None:
    theirs = blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    read, ours = blip_twins.med(), blip_twins.med(seed=10)
    load_blip(read, PretrainedSource(name=str(tmp_path)))
    state = official(load_file(tmp_path / "model.safetensors"))
    extra = {"temp": torch.tensor(0.05), "text_encoder_m.x": torch.zeros(1), "image_queue": torch.zeros(2)}
    save_file(state | extra, tmp_path / "official.safetensors")
    filled = load_blip_file(ours, tmp_path / "official.safetensors")
    assert filled == ("vision", "text", "decoder", "heads")
    for part in ("vision", "text", "decoder"):
        for name, tensor in read.parts()[part].state_dict().items():
            assert torch.equal(tensor, ours.parts()[part].state_dict()[name]), name
    assert float(ours.heads.temperature) == pytest.approx(0.05)
    assert theirs.config.text_config.vocab_size == WORDS


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    with pytest.raises(CheckpointError, match=r"vision\.norm_eps is 1e-05, the model has 1e-06"):
        load_blip(blip_twins.med(norm_eps=1e-6), PretrainedSource(name=str(tmp_path)))
    blip_twins.twin(BlipForQuestionAnswering, tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds a 'BlipForQuestionAnswering'"):
        load_blip(blip_twins.med(), PretrainedSource(name=str(tmp_path / "other")))
    state = load_file(tmp_path / "model.safetensors")
    save_file({"text_decoder.bert.strange": torch.zeros(1)}, tmp_path / "strange.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown text_decoder\.bert\.strange"):
        load_blip_file(blip_twins.med(), tmp_path / "strange.safetensors")
    encoder = {
        name.replace("text_decoder.bert", "text_encoder"): tensor + 1
        for name, tensor in state.items()
        if "bert.embeddings.LayerNorm" in name
    }
    save_file(state | encoder, tmp_path / "apart.safetensors")
    with pytest.raises(CheckpointError, match="differs between text encoder and decoder"):
        load_blip_file(blip_twins.med(), tmp_path / "apart.safetensors")
