"""A trained run, ready to answer: `isthmus.load("runs/demo")`."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from isthmus.build.workshop import Workshop, open_workshop
from isthmus.config.evaluation import Decoding as DecodingSettings
from isthmus.config.model import Classifier, MaskedImageModel, VisualTokenizer
from isthmus.core.devices import keep_freed_memory, number_format, precision_for
from isthmus.core.errors import CheckpointError, DataError, UsageError
from isthmus.core.options import RunOptions
from isthmus.data.collate import collate
from isthmus.data.controls import MemoryImage
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.pictures import upright_rgb
from isthmus.data.processor import VisionLanguageProcessor
from isthmus.data.rows import RowKind
from isthmus.data.samples import FileImage, ImageRef, Sample
from isthmus.data.templates import ChatTemplate
from isthmus.generation.captions import WritesCaptions, write_captions
from isthmus.generation.decode import Decoding, generate
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.run.directory import TEMPLATE, RunDirectory
from isthmus.run.weights import load_weights

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model wrote, and with how many tokens."""

    text: str
    num_tokens: int


@dataclass(frozen=True)
class LoadedRun:
    """A model with its processor, as its last stage left it."""

    directory: RunDirectory
    workshop: Workshop
    options: RunOptions

    @property
    def seed(self) -> int:
        """What drawn answers and intervals depend on: the option's, or else the recipe's."""
        return self.workshop.recipe.seed if self.options.seed is None else self.options.seed

    def number_format(self) -> AbstractContextManager[None]:
        """The number format of matrix products that the options ask for."""
        model = self.workshop.model
        device = next(model.parameters()).device
        return number_format(device, precision_for(model, device, self.options.precision))

    def answer(self, image: str | Path | Image.Image, question: str | None = None) -> str:
        """Answer a question about a picture; without a question, write a caption.

        Args:
            image: A file, or a decoded picture.
            question: What is asked. Special tokens in it stay text.

        Raises:
            UsageError: The run's model writes no text, or the question is empty or no UTF-8 text.
            DataError: The picture cannot be read, or the question does not fit the context.
        """
        return self.ask(picture_of(image), question).text

    def ask(self, image: ImageRef, question: str | None) -> Answer:
        """As `answer`, with the number of tokens."""
        if question is not None and not question.strip():
            raise UsageError("the question is empty; write one, or leave it out for a caption")
        if question is not None and any("\ud800" <= character <= "\udfff" for character in question):
            raise UsageError("the question is no UTF-8 text; write it in UTF-8")
        asked = question is not None
        if question is not None:
            self._tell_unknown_words(question)
        sample = Sample(
            id=image.name,
            origin=image.name,
            images=(image,),
            captions=() if asked else ("",),
            question=question,
            answers=("",) if asked else (),
        )
        decoding, evaluation = self.decoding, self.workshop.recipe.evaluation
        if not asked and evaluation is not None and evaluation.task == "questions":
            # Room that is set for short answers would cut a caption off.
            room = max(decoding.max_new_tokens, DecodingSettings().max_new_tokens)
            decoding = replace(decoding, max_new_tokens=room)
        return self.write([sample], rows="questions" if asked else "captions", decoding=decoding)[0]

    def _tell_unknown_words(self, question: str) -> None:
        """Say which words the model never learnt to read; it answers nevertheless."""
        tokenizer = self.workshop.tokenizer
        if tokenizer is None or tokenizer.unk_token_id is None:
            return
        ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in question.split()}
        unknown = [word for word, found in ids.items() if tokenizer.unk_token_id in found]
        if unknown:
            named = f"word {unknown[0]}; it" if len(unknown) == 1 else f"words {', '.join(unknown)}; each"
            _LOG.warning("the model never learnt the %s reads as one unknown word", named)

    def write(
        self,
        samples: list[Sample],
        *,
        rows: RowKind,
        decoding: Decoding | None = None,
        seed: int | None = None,
    ) -> list[Answer]:
        """Continue the prompts of some samples, or write a caption of the first picture of each.

        Args:
            samples: Pictures, with what is asked.
            rows: How they are read.
            decoding: How tokens are chosen; None takes what the recipe says.
            seed: What drawn answers depend on; None takes the run's.

        Raises:
            UsageError: The run's model writes no text, or captions alone and something else is asked.
            DataError: A sample has nothing of this kind, a picture cannot be read, or a prompt does not fit.
        """
        model, processor = self.workshop.model, self.workshop.processor
        chosen, drawn_by = decoding or self.decoding, self.seed if seed is None else seed
        writer: object = model
        if isinstance(writer, WritesCaptions) and isinstance(processor, DualEncoderProcessor):
            if rows != "captions":
                raise UsageError(
                    f"{self.directory.path} holds a {self.workshop.recipe.final_model.kind}, which writes captions and "
                    f"answers nothing, but rows are '{rows}'; leave the question out"
                )
            return self._captions(writer, processor, samples, chosen, drawn_by)
        if not isinstance(model, VisionLanguageModel) or not isinstance(processor, VisionLanguageProcessor):
            raise UsageError(
                f"{self.directory.path} holds a {self.workshop.recipe.final_model.kind}, which writes no text; "
                "ask a run of kind vision_language_model"
            )
        made = [processor.row(sample, rows=rows, choice=0, purpose="prompt") for sample in samples]
        batch = collate(made, pad_id=processor.pad_id, side="left").to(next(model.parameters()).device)
        codec = processor.codec
        with self.number_format():
            written = generate(
                model,
                batch,
                chosen,
                end_ids=codec.end_ids[-1:],
                pad_id=codec.pad_id,
                seed=drawn_by,
            )
        return [Answer(text=codec.decode(ids), num_tokens=len(ids)) for ids in written]

    def _captions(
        self,
        model: WritesCaptions,
        processor: DualEncoderProcessor,
        samples: list[Sample],
        decoding: Decoding,
        seed: int,
    ) -> list[Answer]:
        """A caption of the first picture of each sample, no longer than the texts that the model learnt from."""
        made = [processor.row(sample, choice=0, purpose="prompt") for sample in samples]
        batch = collate(made, pad_id=processor.pad_id).to(next(self.workshop.model.parameters()).device)
        encoder = processor.captions
        decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, encoder.context - 1))
        with self.number_format():
            written = write_captions(
                model, batch, decoding, end_id=encoder.end_id, pad_id=encoder.pad_id, seed=seed
            )
        return [Answer(text=encoder.decode(ids), num_tokens=len(ids)) for ids in written]

    @property
    def decoding(self) -> Decoding:
        """How the recipe says that answers are written."""
        evaluation = self.workshop.recipe.evaluation
        settings = evaluation.decoding if evaluation is not None else DecodingSettings()
        return Decoding(**settings.model_dump())


def picture_of(image: str | Path | Image.Image) -> ImageRef:
    """A picture from a file, or one that is decoded already.

    Raises:
        BadSample: The decoded picture holds floating-point numbers, which may be no numbers at all.
        DataError: There is no such file.
    """
    if isinstance(image, Image.Image):
        return MemoryImage(image=upright_rgb(image, "the picture"), name="the picture")
    path = Path(image)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}; expected a file with a picture")
    return FileImage(path=path, name=path.name)


def load(run: str | Path, options: RunOptions | None = None, *, model: str | None = None) -> LoadedRun:
    """Open a finished run.

    Args:
        run: Its directory.
        options: Device and network; None takes this machine's best device and no network.
        model: One of the run's named models, as the last stage that trained it left it; None takes the one that the
            run hands on.

    Raises:
        CheckpointError: It is no run, it is not finished, or its files do not fit each other.
        UsageError: It has no model of this name, or it trained none at all.
    """
    keep_freed_memory()
    directory = RunDirectory(Path(run))
    recipe = directory.read_recipe()
    if not recipe.training:
        raise UsageError(
            f"{run} wrote data and trained nothing, so there is no model to open; what it wrote lies in "
            f"{directory.stage(recipe.stages[-1].name)}"
        )
    if not directory.final.is_dir():
        raise CheckpointError(
            f"{run} is not finished (it has no `final` folder); go on with `isthmus train RECIPE --out RUN --resume`"
        )
    if model is not None and model not in recipe.models:
        names = ", ".join(recipe.models) or "none, as its recipe has one model"
        raise UsageError(f"{run} has no model named '{model}'; its named models are: {names}")
    is_final = model is None or model == recipe.final_name
    alone = recipe.alone(recipe.final_name if is_final else model)
    weights = directory.final if is_final else directory.stage(alone.training[-1].name)
    tokenizer = directory.final if is_final else directory.tokenizer(model)
    reads = not isinstance(alone.final_model, MaskedImageModel | VisualTokenizer | Classifier)
    if reads and not (tokenizer / "tokenizer.json").is_file():
        raise CheckpointError(f"{tokenizer} has no tokenizer.json; restore it from a copy")
    workshop = open_workshop(
        alone,
        options or RunOptions(),
        tokenizer_folder=tokenizer,
        template=_template(directory) if is_final else None,
    )
    load_weights(workshop.model, weights)
    workshop.model.eval().requires_grad_(requires_grad=False)
    return LoadedRun(directory, workshop, options or RunOptions())


def _template(directory: RunDirectory) -> ChatTemplate | None:
    """The template the run was trained with; None where its model writes no text."""
    file = directory.final / TEMPLATE
    if not file.is_file():
        return None
    try:
        return ChatTemplate.from_json(file.read_text(encoding="utf-8"))
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is damaged; restore it from a copy") from error
