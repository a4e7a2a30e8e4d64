"""Chat templates: what surrounds each turn, kept apart from what people and models say.

A template is data, saved beside the checkpoint, so that training, evaluation and use render alike. Rendering gives
segments and not one string: which tokens carry loss follows from the segments, never from searching text, and a marker
somebody types stays text. The pieces follow the published templates: LLaVA (`llava_plain`, `vicuna_v0`, `vicuna_v1`),
LLaMA-2 and LLaMA-3 chat, Mistral, Gemma, ChatML, Phi-3 and OpenFlamingo.
"""

import difflib
import json
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from isthmus.core.errors import DataError, RecipeError
from isthmus.data.samples import Turn
from isthmus.data.segments import Segment, content_segments, merged, template_segment

BOS = "{bos}"
EOS = "{eos}"
EOC = "<|endofchunk|>"


@dataclass(frozen=True)
class Wrap:
    """What stands before and after the words of one role."""

    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """How a conversation becomes one text. `{bos}` and `{eos}` stand for the tokenizer's own first and last token.

    Attributes:
        name: How recipes call it.
        start: Before everything.
        default_system: The system text where the conversation gives none; empty for none.
        system: Around the system text.
        system_in_user: The system text stands inside the first user turn (LLaMA-2, Gemma).
        user: Around a user turn.
        after_user_text: After a user turn that holds text, before `user.after`; in `plain` it keeps
            question and answer apart.
        assistant: Around an answer; `after` follows the end and carries no loss.
        end: Ends an answer; the model learns to write it.
        specials: Special tokens the tokenizer must know, besides `{bos}` and `{eos}`.
        pictures_first: Pictures that open the conversation stand before `start`, as a visual prefix does (ClipCap).
    """

    name: str
    start: str = ""
    default_system: str = ""
    system: Wrap = Wrap()
    system_in_user: bool = False
    user: Wrap = Wrap()
    after_user_text: str = ""
    assistant: Wrap = Wrap()
    end: str = EOS
    specials: tuple[str, ...] = ()
    pictures_first: bool = False

    def bind(self, *, bos: str | None, eos: str | None, vocabulary: Container[str]) -> Self:
        """The template with the tokenizer's own first and last token filled in; no first token is fine.

        Raises:
            RecipeError: The tokenizer lacks special tokens that the template uses; all of them are listed.
        """
        pieces = json.dumps(asdict(self))
        missing = [repr(token) for token in self.specials if token not in vocabulary]
        if eos is None and EOS in pieces:
            missing.append("an end token (eos_token)")
        if missing:
            raise RecipeError(
                f"template '{self.name}' needs {', '.join(missing)}, which the tokenizer lacks; "
                "choose a template made for this language model, for example plain"
            )

        def filled(text: str) -> str:
            return text.replace(BOS, bos or "").replace(EOS, eos or "")

        def wrapped(wrap: Wrap) -> Wrap:
            return Wrap(filled(wrap.before), filled(wrap.after))

        return replace(
            self,
            start=filled(self.start),
            system=wrapped(self.system),
            user=wrapped(self.user),
            assistant=wrapped(self.assistant),
            end=filled(self.end),
        )

    def render(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> tuple[Segment, ...]:
        """The conversation as segments; supervised are the words of every assistant turn and the end after them.

        Args:
            turns: Who says what. A system turn may only come first.
            add_generation_prompt: End with what opens an answer, without its last spaces: the model writes
                those itself.

        Raises:
            DataError: A system turn stands in the middle.
        """
        system, turns = self._system(turns)
        prefix, turns = self._prefix(turns)
        segments = [*prefix, template_segment(self.start)]
        if system and not self.system_in_user:
            segments += self._around_system(system)
            system = ()
        for turn in turns:
            if turn.role == "system":
                raise DataError("a system turn stands after other turns; expected it first")
            if turn.role == "assistant":
                segments += [
                    template_segment(self.assistant.before),
                    *content_segments(turn.parts, supervised=True),
                ]
                segments += [
                    replace(template_segment(self.end), supervised=True),
                    template_segment(self.assistant.after),
                ]
                continue
            inside = self._around_system(system) if system else []
            system = ()
            after = self.after_user_text if turn.text else ""
            segments += [
                template_segment(self.user.before),
                *inside,
                *content_segments(turn.parts, supervised=False),
            ]
            segments += [template_segment(after + self.user.after)]
        if add_generation_prompt:
            segments.append(template_segment(self.assistant.before.rstrip(" ")))
            return merged(segments, strip_end=True)
        return merged(segments, strip_end=False)

    def _system(self, turns: Sequence[Turn]) -> tuple[tuple[Segment, ...], Sequence[Turn]]:
        if turns and turns[0].role == "system":
            return tuple(content_segments(turns[0].parts, supervised=False)), turns[1:]
        return ((template_segment(self.default_system),) if self.default_system else ()), turns

    def _prefix(self, turns: Sequence[Turn]) -> tuple[list[Segment], Sequence[Turn]]:
        if not self.pictures_first or not turns or turns[0].role != "user":
            return [], turns
        parts = turns[0].parts
        count = next((at for at, part in enumerate(parts) if isinstance(part, str)), len(parts))
        rest = replace(turns[0], parts=parts[count:])
        return content_segments(parts[:count], supervised=False), (rest, *turns[1:])

    def _around_system(self, system: Sequence[Segment]) -> list[Segment]:
        return [template_segment(self.system.before), *system, template_segment(self.system.after)]

    def to_json(self) -> str:
        """The template as JSON text, saved beside a checkpoint."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: The text is no template.
        """
        try:
            fields = json.loads(text)
            wraps = {role: Wrap(**fields.pop(role)) for role in ("system", "user", "assistant")}
            return cls(**fields | wraps | {"specials": tuple(fields["specials"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                "this is no chat template; expected the JSON that ChatTemplate.to_json writes"
            ) from error

    @staticmethod
    def from_name(name: str) -> "ChatTemplate":
        """The template a recipe names.

        Raises:
            RecipeError: There is no such template.
        """
        if name not in TEMPLATES:
            near = difflib.get_close_matches(name, TEMPLATES, n=1, cutoff=0.5)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise RecipeError(f"there is no template '{name}'{hint}; expected one of {', '.join(TEMPLATES)}")
        return TEMPLATES[name]


def _vicuna(human: str) -> str:
    return (
        f"A chat between a curious {human} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {human}'s questions."
    )


def _header(role: str) -> Wrap:
    return Wrap(f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")


TEMPLATES = {
    template.name: template
    for template in (
        ChatTemplate(name="plain", start=BOS, system=Wrap("", "\n"), after_user_text="\n"),
        # LLaVA's first stage: picture, caption, newline. The newline is the end, so no end token is learnt.
        ChatTemplate(name="llava_plain", start=BOS, system=Wrap("", "\n"), after_user_text="\n", end="\n"),
        # Flamingo: pictures stand in running text, and what belongs to one ends with a token of its own.
        ChatTemplate(
            name="flamingo", start=BOS, system=Wrap("", "\n"), after_user_text="\n", end=EOC, specials=(EOC,)
        ),
        # A visual prefix: pictures, first token, prompt and caption (AnyMAL's first stage, CLIP + GPT-2 captioning).
        ChatTemplate(
            name="prefix", start=BOS, system=Wrap("", " "), after_user_text=" ", pictures_first=True
        ),
        # BLIP-2 before a causal model: queries, first token, prompt, caption, newline.
        ChatTemplate(
            name="blip2", start=BOS, system=Wrap("", " "), after_user_text=" ", end="\n", pictures_first=True
        ),
        ChatTemplate(
            name="vicuna_v0",
            start=BOS,
            default_system=_vicuna("human"),
            system=Wrap("", "###"),
            user=Wrap("Human: ", "###"),
            assistant=Wrap("Assistant: "),
            end="###",
        ),
        ChatTemplate(
            name="vicuna_v1",
            start=BOS,
            default_system=_vicuna("user"),
            system=Wrap("", " "),
            user=Wrap("USER: ", " "),
            assistant=Wrap("ASSISTANT: "),
        ),
        # Every round is a sequence of its own; the space before the end token is learnt, or it would never be written.
        ChatTemplate(
            name="llama2",
            system=Wrap("<<SYS>>\n", "\n<</SYS>>\n\n"),
            system_in_user=True,
            user=Wrap(BOS + "[INST] ", " [/INST]"),
            assistant=Wrap(" "),
            end=" " + EOS,
        ),
        # One first token a conversation, no space before the end: what Mistral documents for its instruct models.
        ChatTemplate(
            name="mistral",
            start=BOS,
            system=Wrap("", "\n\n"),
            system_in_user=True,
            user=Wrap("[INST] ", " [/INST]"),
            assistant=Wrap(" "),
        ),
        ChatTemplate(
            name="llama3",
            start=BOS,
            system=_header("system"),
            user=_header("user"),
            assistant=Wrap(_header("assistant").before),
            end="<|eot_id|>",
            specials=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        ChatTemplate(
            name="gemma",
            start=BOS,
            system=Wrap("", "\n\n"),
            system_in_user=True,
            user=Wrap("<start_of_turn>user\n", "<end_of_turn>\n"),
            assistant=Wrap("<start_of_turn>model\n", "\n"),
            end="<end_of_turn>",
            specials=("<start_of_turn>", "<end_of_turn>"),
        ),
        ChatTemplate(
            name="chatml",
            system=Wrap("<|im_start|>system\n", "<|im_end|>\n"),
            user=Wrap("<|im_start|>user\n", "<|im_end|>\n"),
            assistant=Wrap("<|im_start|>assistant\n", "\n"),
            end="<|im_end|>",
            specials=("<|im_start|>", "<|im_end|>"),
        ),
        # LLaVA-1.6's form for Nous-Hermes-2-Yi-34B: ChatML without newlines between turns, with a short system text.
        ChatTemplate(
            name="chatml_direct",
            default_system="Answer the questions.",
            system=Wrap("<|im_start|>system\n", "<|im_end|>"),
            user=Wrap("<|im_start|>user\n", "<|im_end|>"),
            assistant=Wrap("<|im_start|>assistant\n"),
            end="<|im_end|>",
            specials=("<|im_start|>", "<|im_end|>"),
        ),
        ChatTemplate(
            name="phi",
            system=Wrap("<|system|>\n", "<|end|>\n"),
            user=Wrap("<|user|>\n", "<|end|>\n"),
            assistant=Wrap("<|assistant|>\n", "\n"),
            end="<|end|>",
            specials=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ),
    )
}
