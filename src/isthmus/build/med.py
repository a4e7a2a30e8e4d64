"""BLIP's mixture of encoder and decoder from a recipe."""

from isthmus.build.text import num_words
from isthmus.build.vision import Origin, build_vision
from isthmus.config.med import Med, Momentum
from isthmus.data.vocabulary import Tokenizer
from isthmus.models.med import Med as MedModule
from isthmus.models.med import MedForm, MedHeads, StartIds
from isthmus.models.momentum import MomentumForm
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
    return MedModule(
        vision=vision,
        text=MedText(vocabulary=known + 2, context=said.positions, vision_width=vision.width, shape=shape),
        encoder=MedEncoder(shape=shape),
        decoder=MedDecoder(shape=shape, vocabulary=known + 2),
        heads=MedHeads(
            vision_width=vision.width,
            width=shape.width,
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


def _momentum(config: Momentum) -> MomentumForm:
    return MomentumForm(decay=config.decay, queue=config.queue, soft=config.soft, ramp=config.ramp_fraction)
