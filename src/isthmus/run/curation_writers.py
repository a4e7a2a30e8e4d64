"""A language model of this machine as a writer of instruction data: a Hugging Face folder, or a run of ours."""

from pathlib import Path

from isthmus.build.model import build_model
from isthmus.build.processors import build_processor
from isthmus.build.text import build_tokenizer
from isthmus.config.instructions import WriterOptions
from isthmus.config.language import PretrainedLanguage
from isthmus.config.model import LanguageModel
from isthmus.core.devices import choose_device
from isthmus.core.errors import UsageError
from isthmus.core.options import RunOptions
from isthmus.curation.instructions.local import LocalWriter
from isthmus.data.processor import LanguageProcessor
from isthmus.generation.decode import Decoding
from isthmus.models.language_model import LanguageModelOnly
from isthmus.run.directory import RunDirectory
from isthmus.run.load import load


def local_writer(by: WriterOptions, options: RunOptions) -> LocalWriter:
    """Open the folder that `--local` names.

    Raises:
        UsageError: It is no folder, or holds another kind of model.
        CheckpointError: It is a run that is not finished, or damaged.
    """
    assert by.local is not None
    if not by.local.is_dir():
        raise UsageError(
            f"--local is '{by.local}', which is no folder; expected a Hugging Face folder of a language model, or a run"
        )
    if RunDirectory(by.local).recipe_file.is_file():
        workshop = load(by.local, options).workshop
        model, processor = workshop.model, workshop.processor
    else:
        model, processor = _opened(by.local, by.template, options)
    if not isinstance(model, LanguageModelOnly) or not isinstance(processor, LanguageProcessor):
        raise UsageError(f"{by.local} holds a model that reads pictures; expected a language model alone")
    decoding = Decoding(
        method="sample" if by.temperature > 0 else "greedy",
        temperature=by.temperature or 1.0,
        max_new_tokens=by.max_tokens,
    )
    return LocalWriter(model=model, processor=processor, decoding=decoding, seed=options.seed or 0)


def _opened(folder: Path, template: str, options: RunOptions) -> tuple[object, object]:
    language = PretrainedLanguage(name=str(folder), template=template)
    config = LanguageModel(language=language)
    tokenizer = build_tokenizer(config, {}, kept=None, network_allowed=options.allow_network)
    model = build_model(
        config,
        seed=0,
        tokenizer=tokenizer,
        frozen=frozenset(config.part_names),
        network_allowed=options.allow_network,
    ).to(choose_device(options.device))
    model.eval().requires_grad_(requires_grad=False)
    assert isinstance(model, LanguageModelOnly)
    # Many tokenizers do not say how much their model reads; its own configuration does.
    context = model.language.network.config.to_dict().get("max_position_embeddings")
    config = LanguageModel(language=language.model_copy(update={"context": context}))
    return model, build_processor(config, model, tokenizer, images=None)
