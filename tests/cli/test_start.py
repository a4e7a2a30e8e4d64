"""How fast and how light the command line starts, measured in a fresh process."""

import subprocess
import sys
import tomllib
from pathlib import Path

import isthmus

HEAVY = ("torch", "transformers", "numpy", "pydantic", "ruamel", "rich", "jinja2", "peft", "PIL")
HELP = """\
import sys, time
start = time.process_time()
from isthmus.cli.app import app
try:
    app(["--help"], prog_name="isthmus")
except SystemExit as ended:
    assert not ended.code
seconds = time.process_time() - start
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(seconds)
"""


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The output of a fresh Python."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    # Processor time, and the best of three, so that other work on the machine does not decide the test.
    runs = [fresh("-c", HELP) for _ in range(3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    modules = set(runs[0].stdout.splitlines()[-2].split())
    assert not modules & set(HEAVY)
    assert min(float(run.stdout.splitlines()[-1]) for run in runs) < 0.4
    for verb in ("demo", "train", "show", "evaluate", "ask"):
        assert f"  {verb} " in runs[0].stdout


def test_a_mistake_in_a_recipe_is_said_before_torch_is_imported() -> None:
    program = (
        "import sys\nfrom isthmus.cli.app import app\ntry:\n    app(sys.argv[1:], prog_name='isthmus')\n"
        "except SystemExit as ended:\n    print(ended.code, 'torch' in sys.modules)"
    )
    for verb in (("show", "llava"), ("train", "llava", "--dry-run")):
        done = fresh("-c", program, *verb, "model.connector={kind: mpl}")
        assert done.stdout.split() == ["2", "False"], done.stderr
        assert "did you mean 'mlp'?" in done.stderr


def test_the_package_imports_nothing_heavy_and_names_what_it_has() -> None:
    program = f"import sys, isthmus; print(set({HEAVY!r}) & set(sys.modules)); isthmus.nothing"
    done = fresh("-c", program)
    assert done.stdout.strip() == "set()"
    assert "isthmus has no 'nothing'; it has __version__, build_model, load, load_recipe" in done.stderr
    assert {"load_recipe", "build_model", "load"} <= set(dir(isthmus))


def test_the_version_is_the_one_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    done = fresh("-m", "isthmus", "--version")
    assert done.stdout.split() == ["isthmus", project["project"]["version"]]
    assert isthmus.__version__ == project["project"]["version"]
