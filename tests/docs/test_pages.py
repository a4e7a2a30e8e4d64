"""Documents say what is true: links lead somewhere, the tree is the tree, the reference is current, pages keep the rules."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pages
import pytest

from isthmus.config.load import load_recipe, shipped_names
from isthmus.core import errors
from isthmus.core.errors import IsthmusError

PAGE_NAMES = [page.relative_to(pages.ROOT).as_posix() for page in pages.PAGES]


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = pages.ROOT / name
    for link in pages.links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if path == "results/":
            continue  # made by bench/, and only where runs were measured
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(target), link


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_pages_name_no_machine_and_promise_nothing(name: str) -> None:
    text = pages.text_of(name)
    assert not re.search(r"/(?:work|tmp|root|home)/", text)
    assert not re.search(r"\b(?:TODO|coming soon|badge|shields\.io)\b", text, re.IGNORECASE)


def test_the_tree_is_the_tree() -> None:
    listed = dict(pages.tree())
    missing = [path for path in listed if not (pages.ROOT / path).exists()]
    # Results are made by bench/, and weights by the tiny recipes.
    assert set(missing) <= {"docs/results/", "src/isthmus/weights/"}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=pages.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    folders = {
        parent.as_posix() + "/"
        for file in tracked
        for parent in Path(file).parents
        if file.startswith("src/isthmus/") and parent != Path("src")
    }
    wanted = {folder for folder in folders if folder.startswith("src/isthmus/")}
    inside_weights = {folder for folder in wanted if folder.startswith("src/isthmus/weights/")}
    assert wanted - set(listed) - inside_weights == set()
    top = {file.split("/")[0] + "/" for file in tracked if "/" in file and not file.startswith(".")}
    assert top - {"src/"} <= set(listed)


def test_the_tree_is_aligned() -> None:
    text = next(block.text for block in pages.blocks("text") if block.text.startswith("README.md"))
    starts = {len(re.match(r" *\S+ +", line)[0]) for line in text.splitlines()}
    assert len(starts) == 1


def test_the_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", pages.ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.reference()
    is_current = pages.text_of("docs/reference-recipe.md") == made
    assert is_current, "the schema changed: run .venv/bin/python docs/make_reference.py"
    assert "anything" not in made


def test_the_readme_names_every_shipped_recipe() -> None:
    table = set(re.findall(r"^\| `([a-z0-9_/]+)` \|", pages.text_of("README.md"), re.MULTILINE))
    assert set(shipped_names()) - table == set()


def test_the_readme_names_every_exit_code() -> None:
    classes = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, IsthmusError)
    ]
    codes = {one.exit_code for one in classes}
    table = pages.text_of("README.md").split("| exit code | means |")[1].split("\n\n")[0]
    assert codes | {0} == {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)}
    assert "| 130, 143 |" in table


def test_the_forward_pass_has_the_numbers_of_the_demo() -> None:
    vision, reads = load_recipe("demo").model, load_recipe("tiny/scenes_language").model.language
    eye, strip = vision.vision, vision.connector
    side = eye.image_size // eye.patch
    tokens = side**2
    assert (strip.depth, strip.pool) == (1, None)
    text = pages.text_of("ARCHITECTURE.md")
    for said in (
        f"height={eye.image_size}, width={eye.image_size}",
        f"a grid of {side} x {side} and CLS through {eye.layers} blocks",
        f"`image=1, patch={side**2}, dim={eye.width}`",
        f"norm, {eye.width} to {reads.width} for each patch, learned positions",
        f"`image=1, token={tokens}, width={reads.width}`",
        f"start, {tokens} placeholders, 7 of the question, the answer, end",
        f"`row=1, token={tokens + 10}, dim={reads.width}`",
        f"after {reads.layers} decoder layers",
    ):
        assert said in text, f"the demo recipe changed; ARCHITECTURE.md should say: {said}"
