"""BLIP's mixture of encoder and decoder from a recipe."""

from pathlib import Path

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.build.text import num_words
from isthmus.build.vision import build_vision
from isthmus.config.med import Med, Momentum
from isthmus.data.vocabulary import Tokenizer
from isthmus.interop.blip import load_blip, load_blip_file, start_med_from_bert
from isthmus.models.med import Med as MedModule
from isthmus.models.med import MedForm, StartIds
from isthmus.models.momentum import MomentumForm
from isthmus.models.pair_heads import PairHeads
from isthmus.parts.language.med import MedDecoder, MedEncoder, MedShape, MedText


def build_med(config: Med, origin: Origin, *, tokenizer: Tokenizer | None, frozen: bool) -> MedModule:
    """The model; `frozen` says that no stage trains its vision encoder.

    Raises:
        RecipeError: A name does not exist.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine.
    """
    vision = build_vision(config.vision, origin, frozen=frozen)
    known = num_words(config.text.tokenizer, tokenizer)
    said = config.text
    shape = MedShape(
        width=said.width, num_layers=said.layers, num_heads=said.heads, ffn=said.ffn, dropout=said.dropout
    )
    model = MedModule(
        vision=vision,
        text=MedText(
            vocabulary=known + 2,
            context=said.positions,
            vision_width=vision.width,
            shape=shape,
            vision_norm=config.vision_norm,
        ),
        encoder=MedEncoder(shape=shape),
        decoder=MedDecoder(shape=shape, vocabulary=known + 2),
        heads=PairHeads(
            image_width=vision.width,
            text_width=shape.width,
            embed_dim=config.embed_dim,
            temperature=config.temperature,
        ),
        start_ids=StartIds(caption=known, match=known + 1),
        form=MedForm(
            pool=config.pool,
            momentum=None if config.momentum is None else _momentum(config.momentum),
            vision_learns=not frozen,
        ),
    )
    _fill(config, model, origin)
    return model


def _fill(config: Med, model: MedModule, origin: Origin) -> None:
    """Put the checkpoints that a recipe names into a model; nothing where weights are random."""
    for name, path, load in (
        (config.bert, "model.bert", start_med_from_bert),
        (config.weights, "model.weights", load_blip),
    ):
        if name is None or origin.random:
            continue
        if path == "model.weights" and name.endswith(".safetensors"):
            load_blip_file(model, Path(locate(name, path=path)))
            continue
        with reading(name, path, origin):
            load(model, source_of(name, None, origin, path=path))


def _momentum(config: Momentum) -> MomentumForm:
    return MomentumForm(decay=config.decay, queue=config.queue, soft=config.soft, ramp=config.ramp_fraction)
