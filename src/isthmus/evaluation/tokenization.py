"""The Penn Treebank tokeniser of the COCO caption scorers: Java's, as shipped with pycocoevalcap.

The same archive, flags and dropped punctuation as the official wrapper, which is not called itself: it writes
into the installed package, does not look at Java's exit code, and puts captions out of step with their rows
where one is empty at the end or holds a character that Java takes for a line break.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from isthmus.core.errors import DataError, MachineError

_INSTALL = "install it with `pip install pycocoevalcap`"


def tokenize(texts: Sequence[str]) -> list[str]:
    """Return each text as lower-case tokens with spaces between, punctuation dropped; empty stays empty.

    Raises:
        MachineError: pycocoevalcap or Java is missing, or Java fails.
        DataError: The tokeniser gave back another number of lines than it was given.
    """
    try:
        from pycocoevalcap.tokenizer import ptbtokenizer
    except ImportError as missing:
        raise MachineError(
            f"the caption scorers need the package pycocoevalcap, not found; {_INSTALL}"
        ) from missing
    java = shutil.which("java")
    if java is None:
        raise MachineError(
            "the caption scorers' tokeniser needs Java, but no `java` was found on the PATH; install a "
            "Java runtime "
            "(8 or later), for example the package default-jre-headless"
        )
    lines = [" ".join(text.split()) for text in texts]
    given = [line for line in lines if line]
    if not given:
        return lines
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    found = _run(java, jar, given)
    if len(found) != len(given):
        raise DataError(
            f"the tokeniser returned {len(found)} lines for {len(given)} captions; look for odd characters"
        )
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    tokens = iter(
        " ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in found
    )
    return [next(tokens) if line else "" for line in lines]


def _run(java: str, jar: Path, lines: list[str]) -> list[str]:
    flags = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "utf-8"]
    text = "\n".join(lines) + "\n"
    done = subprocess.run(
        [java, "-cp", str(jar), *flags], input=text.encode(errors="replace"), capture_output=True, check=False
    )
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise MachineError(
            f"the caption tokeniser failed with code {done.returncode} ({reason[0]}); check that `java "
            f"-version` works "
            f"and that pycocoevalcap is whole ({_INSTALL})"
        )
    return done.stdout.decode(errors="replace").removesuffix("\n").split("\n")
