"""BLIP against transformers' own models with the same random weights, read from the folders that it writes.

Measured in float32 on one thread: logits of words (up to 1.3) within 4e-7, their loss equal bits, similarities within 2e-7,
match logits within 2e-7. The bound for all is 3e-6, as other machines sum in other orders. Captions are the same tokens.
"""

from pathlib import Path

import blip_twins
import pytest
import small_med
import torch
from safetensors.torch import load_file, save_file
from small_med import DEC, ENC, WORDS
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

from isthmus.build.model import build_model
from isthmus.config.med import Med as Settings
from isthmus.core.batch import IGNORED, Batch
from isthmus.core.errors import CheckpointError
from isthmus.core.protocols import Progress
from isthmus.generation.captions import write_captions
from isthmus.generation.decode import Decoding
from isthmus.interop.blip import load_blip, load_blip_file, start_med_from_bert
from isthmus.models.med import Med
from isthmus.objectives.captioning import Captioning
from isthmus.objectives.representations import similarities
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.language.med import MedShape, MedText

BOUND = 3e-6


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
    ours = small_med.med()
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
    ours = small_med.med()
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
    assert scores.std() > 0.01
    assert matched.std() > 0.01


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
    ours = small_med.med().eval()
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
    read, ours = small_med.med(), small_med.med(seed=10)
    load_blip(read, PretrainedSource(name=str(tmp_path)))
    state = official(load_file(tmp_path / "model.safetensors"))
    extra = {"temp": torch.tensor(0.05), "text_encoder_m.x": torch.zeros(1), "image_queue": torch.zeros(2)}
    save_file(state | extra, tmp_path / "official.safetensors")
    filled = load_blip_file(ours, tmp_path / "official.safetensors")
    assert filled == ("vision", "text", "decoder", "heads")
    for part in ("vision", "text", "decoder"):
        for name, tensor in read.parts()[part].state_dict().items():
            assert torch.equal(tensor, ours.parts()[part].state_dict()[name]), name
    assert ours.heads.temperature.item() == pytest.approx(0.05)
    assert theirs.config.text_config.vocab_size == WORDS


SMALL = {
    "vision": {
        "kind": "vit",
        "image_size": 28,
        "patch": 14,
        "width": 24,
        "layers": 2,
        "heads": 2,
        "ffn": 48,
        "norm_eps": 1e-5,
        "cls": "placed",
        "features": "all",
    },
    "text": {
        "tokenizer": {"kind": "trained", "data": "none", "vocabulary": DEC},
        "context": 20,
        "positions": 20,
        "width": 16,
        "layers": 3,
        "heads": 2,
        "ffn": 24,
        "dropout": 0.0,
    },
    "embed_dim": 8,
}
"""`small_med` as a recipe says it."""


@pytest.mark.parametrize("named", ["folder", "file", "bert"])
def test_a_recipe_names_published_weights(named: str, tmp_path: Path) -> None:
    """What the recipe's keys build has the numbers that the loaders give; the encoder of a captioner stays random."""
    blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    file, expected = tmp_path / "official.safetensors", small_med.med()
    save_file(official(load_file(tmp_path / "model.safetensors")), file)
    if named == "bert":
        small_bert(tmp_path / "bert")
        start_med_from_bert(expected, PretrainedSource(name=str(tmp_path / "bert")))
        chosen = {"bert": str(tmp_path / "bert")}
        filled = ("encoder.", "decoder.attentions", "text.ffns")
    else:
        load_blip(expected, PretrainedSource(name=str(tmp_path)))
        chosen = {"weights": str(file if named == "file" else tmp_path)}
        filled = ("vision.", "text.", "decoder.")
    built, state = build_model(Settings.model_validate(SMALL | chosen)).state_dict(), expected.state_dict()
    assert built.keys() == state.keys()
    same = {name for name in state if torch.equal(built[name], state[name])}
    assert same >= {name for name in state if name.startswith(filled)}
    assert ("encoder.attentions.0.query.weight" in same) == (named == "bert")
    assert torch.equal(built["text.words.weight"][:DEC], state["text.words.weight"][:DEC])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    blip_twins.twin(BlipForConditionalGeneration, tmp_path)
    with pytest.raises(CheckpointError, match=r"vision\.norm_eps is 1e-05, the model has 1e-06"):
        load_blip(small_med.med(norm_eps=1e-6), PretrainedSource(name=str(tmp_path)))
    blip_twins.twin(BlipForQuestionAnswering, tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds a 'BlipForQuestionAnswering'"):
        load_blip(small_med.med(), PretrainedSource(name=str(tmp_path / "other")))
    state = load_file(tmp_path / "model.safetensors")
    save_file({"text_decoder.bert.strange": torch.zeros(1)}, tmp_path / "strange.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown text_decoder\.bert\.strange"):
        load_blip_file(small_med.med(), tmp_path / "strange.safetensors")
    encoder = {
        name.replace("text_decoder.bert", "text_encoder"): tensor + 1
        for name, tensor in state.items()
        if "bert.embeddings.LayerNorm" in name
    }
    save_file(state | encoder, tmp_path / "apart.safetensors")
    with pytest.raises(CheckpointError, match="differs between text encoder and decoder"):
        load_blip_file(small_med.med(), tmp_path / "apart.safetensors")


def small_bert(folder: Path) -> BertForMaskedLM:
    torch.manual_seed(3)
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=DEC,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=20,
        )
    ).eval()
    torch.nn.init.zeros_(bert.bert.embeddings.token_type_embeddings.weight)
    bert.save_pretrained(folder)
    return bert


def test_a_bert_is_the_start_of_encoder_and_decoder(tmp_path: Path) -> None:
    """Without pictures, masks and token types both compute what BERT does, and its head is the captions'."""
    bert = small_bert(tmp_path)
    ours = small_med.med().eval()
    start_med_from_bert(ours, PretrainedSource(name=str(tmp_path)))
    token_ids, _ = texts(1)
    with torch.no_grad():
        said = bert.bert(token_ids).last_hidden_state
        for part in (ours.encoder, ours.decoder):
            states, _ = ours.text(part.attentions, token_ids, None)
            torch.testing.assert_close(states, said, rtol=0, atol=BOUND)
        logits = ours.caption_logits(said.flatten(0, 1))[:, :DEC]
        torch.testing.assert_close(logits, bert(token_ids).logits.flatten(0, 1), rtol=0, atol=BOUND)
    with pytest.raises(CheckpointError, match="does not fit the text transformer"):
        start_med_from_bert(_wider(), PretrainedSource(name=str(tmp_path)))


def _wider() -> Med:
    """A model with one layer fewer and a wider feed-forward."""
    shape = MedShape(width=16, num_layers=2, num_heads=2, ffn=32)
    model = small_med.med()
    model.text = MedText(vocabulary=WORDS, context=20, vision_width=24, shape=shape)
    return model
