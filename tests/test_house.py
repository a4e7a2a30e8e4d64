"""The rules of the house that no other tool checks: sizes, names, docstrings, what is never called, what is pinned."""

import ast
import functools
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "isthmus"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = sorted(
    [*SOURCES, *(ROOT / "tests").rglob("*.py"), *ROOT.glob("bench/**/*.py"), *ROOT.glob("notebooks/*.py")]
)

MAX_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "legacy", "v2"}
OTHER_WORDS = {
    "tower",
    "backbone",
    "projector",
    "adapter",
    "bridge",
    "llm",
    "mm",
    "util",
    "utils",
    "helper",
    "misc",
}
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "eval", "exec", "os.system", "os.popen", "hasattr", "yaml.load", "__import__"}
OPENED_APART = "src/isthmus/interop/unpacking.py"
"""The program that opens files which might run code: nothing imports it, and it runs in a process with limits."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def refuse(found: Collection[str] | Mapping[str, int]) -> None:
    """Fail with every place that breaks the rule, one a line."""
    lines = [f"{name}: {number}" for name, number in found.items()] if isinstance(found, Mapping) else found
    assert not found, "\n" + "\n".join(lines)


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def functions() -> Iterator[tuple[str, Function]]:
    for file in SOURCES:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, Function):
                yield f"{shown(file)}:{node.lineno} {node.name}", node


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|v[0-9]+", name)}


def dotted(node: ast.expr) -> str:
    """`torch.load` for the expression `torch.load`; the last name alone where something is called on a value."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            before = dotted(node.value)
            return f"{before}.{node.attr}" if before else f".{node.attr}"
        case _:
            return ""


def public(body: list[ast.stmt], place: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public classes and functions, and the public ones inside public classes."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{place}:{node.lineno} {node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, place)


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 40
    assert len(list(functions())) > 200


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {shown(file): len(file.read_text(encoding="utf-8").splitlines()) for file in ALL_FILES}
    refuse({name: length for name, length in lengths.items() if length > MAX_LINES})


def test_no_function_is_longer_than_60_lines() -> None:
    lengths = {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in functions()}
    refuse({name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES})


def test_no_function_has_more_than_7_parameters_and_none_takes_any() -> None:
    wide, any_keywords = {}, []
    for name, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            wide[name] = count
        if node.args.kwarg is not None:
            any_keywords.append(name.split(":")[0])
    refuse(wide)
    # The one place that makes commands of functions hands on what the command line parsed; what transformers calls
    # takes what each of its models hands to its layers.
    assert any_keywords == ["src/isthmus/cli/verbs.py", "src/isthmus/parts/language/attention.py"]


def test_everything_public_says_what_it_means() -> None:
    silent = [shown(file) for file in SOURCES if not ast.get_docstring(tree_of(file))]
    for file in SOURCES:
        silent += [
            name for name, node in public(tree_of(file).body, shown(file)) if not ast.get_docstring(node)
        ]
    refuse(silent)


def test_every_package_says_what_it_is_for() -> None:
    folders = {file.parent for file in SOURCES}
    refuse([shown(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()])
    refuse([shown(file) for file in SOURCES if not file.stat().st_size])


def test_files_are_named_by_what_they_hold() -> None:
    names = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    tests = list((ROOT / "tests").rglob("*.py"))
    refuse([shown(path) for path in [*names, *tests] if words_of(path.stem) & EMPTY_NAMES])


def test_names_use_the_words_of_the_design() -> None:
    wrong = []
    for file in SOURCES:
        for node in ast.walk(tree_of(file)):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    name = node.name
                case ast.arg():
                    name = node.arg
                case ast.Name(ctx=ast.Store()):
                    name = node.id
                case ast.Attribute(ctx=ast.Store()):
                    name = node.attr
                case _:
                    continue
            if words_of(name) & OTHER_WORDS:
                wrong.append(f"{shown(file)}:{node.lineno} {name}")
    refuse(wrong)


def _is_unsafe_call(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = dotted(node.func)
    guessed = name == "getattr" and len(node.args) > 2
    extracts = name.endswith((".extractall", ".extract"))
    shell = any(word.arg == "shell" for word in node.keywords)
    remote = any(word.arg == "trust_remote_code" for word in node.keywords)
    return name in UNSAFE_CALLS or guessed or extracts or shell or remote


def _is_unsafe_import(node: ast.AST) -> bool:
    match node:
        case ast.Import():
            return bool({alias.name.split(".")[0] for alias in node.names} & UNSAFE_MODULES)
        case ast.ImportFrom():
            return (node.module or "").split(".")[0] in UNSAFE_MODULES or node.module == "__future__"
        case _:
            return False


def _swallows(node: ast.AST) -> bool:
    """An `except` that goes on as if nothing had happened."""
    silent = (ast.Pass, ast.Continue)
    return isinstance(node, ast.ExceptHandler) and all(isinstance(line, silent) for line in node.body)


def _is_unsafe_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == "trust_remote_code"


@pytest.mark.parametrize("is_wrong", [_is_unsafe_call, _is_unsafe_import, _swallows, _is_unsafe_text])
def test_nothing_unsafe_and_nothing_silent_is_written(is_wrong: Callable[[ast.AST], bool]) -> None:
    found = []
    for file in SOURCES:
        if shown(file) == OPENED_APART:
            continue
        found += [
            f"{shown(file)}:{node.lineno}"
            for node in ast.walk(tree_of(file))
            if is_wrong(node) and isinstance(node, ast.stmt | ast.expr | ast.ExceptHandler)
        ]
    refuse(found)


@pytest.mark.parametrize(
    ("code", "is_wrong"),
    [
        ("torch.load('x')", _is_unsafe_call),
        ("tar.extractall()", _is_unsafe_call),
        ("open_tar().extractall()", _is_unsafe_call),
        ("AutoModel.from_pretrained('x', trust_remote_code=False)", _is_unsafe_call),
        ("subprocess.run('x', shell=True)", _is_unsafe_call),
        ("getattr(a, 'b', None)", _is_unsafe_call),
        ("import pickle", _is_unsafe_import),
        ("from pickle import loads", _is_unsafe_import),
        ("try: pass\nexcept ValueError: pass", _swallows),
        ("{'trust_remote_code': True}", _is_unsafe_text),
    ],
)
def test_the_check_finds_what_it_looks_for(code: str, is_wrong: Callable[[ast.AST], bool]) -> None:
    assert any(is_wrong(node) for node in ast.walk(ast.parse(code)))


def test_no_path_of_one_machine_is_written() -> None:
    places = re.compile("|".join(("/" + "work/", "/" + "tmp/[a-z]", "/" + "root/", "/" + "home/[a-z]")))
    files = [
        *ALL_FILES,
        *PACKAGE.rglob("*.yaml"),
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        ROOT / "requirements.lock",
    ]
    refuse([shown(file) for file in files if places.search(file.read_text(encoding="utf-8"))])


def test_files_that_are_not_code_travel_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["isthmus"]
    packed = {file for pattern in patterns for file in PACKAGE.glob(pattern) if file.is_file()}
    wanted = {file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    refuse(sorted(map(shown, wanted - packed)))


def test_shipped_weights_are_small() -> None:
    assert sum(file.stat().st_size for file in PACKAGE.rglob("*.safetensors")) <= 5_000_000


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def test_the_lock_pins_everything_that_runs_and_tests_need() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["captioning"]]
    assert {_name(need) for need in wanted} - {_name(pin) for pin in pins} == set()
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values())


def test_what_is_run_before_a_merge_is_what_the_reader_is_told() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert script.read_text().splitlines()[-1] == "make test"


def test_every_folder_of_tests_mirrors_one_of_the_package() -> None:
    own = {"parity", "learns", "resume", "docs", "notebooks"}
    folders = {
        PurePath(path).name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))
    }
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders - packages - own == set()
