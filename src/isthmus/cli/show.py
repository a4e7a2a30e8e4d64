"""`isthmus show`: what a recipe or a run is made of, without weights and without network."""

from collections.abc import Iterator
from typing import Annotated

import typer

from isthmus.cli.printing import clean, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions
from isthmus.core.sizes import parse_size

INDENT = "  "


def _print(result: Result) -> None:
    making = [stage for stage in result["stages"] if "kind" in stage]
    trained = [stage for stage in result["stages"] if "kind" not in stage]
    if "models" not in result:
        _print_model({**result, "stages": trained})
        _print_making(making)
        return
    for name, model in result["models"].items():
        typer.echo(f"model {name}" + (", which the run hands on" if name == result["final"] else ""))
        stages = [stage for stage in trained if stage["model"] == name]
        _print_model({**model, "stages": stages})
    _print_making(making)


def _print_making(stages: list[Result]) -> None:
    """What the stages do that make data and train nothing."""
    for stage in stages:
        if stage["kind"] == "instruct":
            typer.echo(
                f"stage {stage['name']}: writes {', '.join(stage['kinds'])} from {clean(stage['facts'])}"
            )
            continue
        written = (
            f"{stage['captions']} captions a picture by {stage['captioner']}, " if stage["captions"] else ""
        )
        bound = f" from {stage['threshold']:g} on" if stage["threshold"] is not None else ""
        best = f", the best {stage['best']}" if stage["best"] is not None else ""
        typer.echo(
            f"stage {stage['name']}: {written}scores by {stage['filter']}{bound}{best}: "
            f"{stage['data']} becomes {stage['makes']}"
        )


def _print_model(result: Result) -> None:
    stages = result["stages"]
    headers = ["part", "kind", "parameters", *(f"in {stage['name']}" for stage in stages)]
    published = result.get("published_total") is not None
    if published:
        headers.insert(3, "published")
    rows = [_cells(row, depth, top, result) for row, depth, top in _walk(result["parts"])]
    total = ["total", "", number(result["total"])]
    if published:
        total.append(number(result["published_total"]))
    rows.append([*total, *(f"{number(stage['trainable'])} trained" for stage in stages)])
    print_table("Parts", headers, rows)
    if any(row.get("tied") for row, _, _ in _walk(result["parts"])):
        typer.echo("(in brackets: held by other rows too, counted once in the total)")
    if published and result["published_total"] != result["total"]:
        typer.echo(
            "(published: the checkpoint as it is; built here without what is not used, or with rows more)"
        )
    for stage in stages:
        kept = f", {', '.join(stage['freeze'])} among them" if stage["freeze"] else ""
        typer.echo(
            f"stage {stage['name']}: {number(stage['trainable'])} trained, {number(stage['frozen'])} frozen{kept}"
        )
    if result["visual_tokens"] is not None:
        reads = any(row["name"] == "fusion" for row in result["parts"])
        apart = " (those that the blocks of fusion read take no place in the context)" if reads else ""
        typer.echo(f"visual tokens a picture: {number(result['visual_tokens'])}{apart}")


def _walk(rows: list[Result], depth: int = 0, top: str | None = None) -> Iterator[tuple[Result, int, str]]:
    for row in rows:
        part = top if top is not None else row["name"]
        yield row, depth, part
        yield from _walk(row.get("parts", []), depth + 1, part)


def _cells(row: Result, depth: int, top: str, result: Result) -> list[str]:
    count = number(row["parameters"])
    cells = [INDENT * depth + row["name"], str(row["kind"]), f"({count})" if row.get("tied") else count]
    if result.get("published_total") is not None:
        cells.append(number(row.get("published_parameters")))
    for stage in result["stages"]:
        learns = top in stage["parts"] or row["name"] in stage["parts"]
        # What is in brackets belongs to other rows, which say whether it learns.
        is_said = row["parameters"] and not row.get("tied")
        cells.append(("trained" if learns else "frozen") if is_said else "")
    return cells


@verb(_print)
def show(
    target: Annotated[str, typer.Argument(help="A recipe (file or shipped name) or a run directory.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes of a recipe: model.connector.context_norm=false"),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also the rows inside each part.")] = False,
    image_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Count visual tokens for pictures of this size.")
    ] = None,
    *,
    options: RunOptions,
) -> Result:
    """Print the parameters of each part and what each stage trains."""
    size = None if image_size is None else parse_size(image_size)

    from isthmus.config.load import recipe_of

    recipe_of(target, overrides or ())  # its mistakes are said before torch is imported

    from isthmus.run.show import show as run_show

    result: Result = run_show(target, overrides or (), image_size=size, network_allowed=options.allow_network)
    if table or options.json:
        return result
    named = {name: _outer(model) for name, model in result.get("models", {}).items()}
    return _outer(result) | ({"models": named} if named else {})


def _outer(table: Result) -> Result:
    """The table without the rows inside each part."""
    rows = [{key: row[key] for key in row if key != "parts"} for row in table["parts"]]
    return {**table, "parts": rows}
