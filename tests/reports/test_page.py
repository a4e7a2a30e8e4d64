"""The page as a whole: complete, self-contained, safe, readable."""

import dataclasses
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from PIL import Image

from isthmus.core.errors import MachineError
from isthmus.reports import page
from isthmus.reports.content import (
    Chart,
    Controls,
    Curve,
    Estimate,
    Header,
    ReportContent,
    Results,
    StageCurves,
    Verdict,
    VerdictState,
    standard_control,
)
from isthmus.reports.examples import Picture

from .example import HOSTILE, demo, photos

TEMPLATES = Path(page.__file__).parent / "templates"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def demo_page() -> str:
    return page.render(demo())


@pytest.fixture(scope="module")
def photo_page() -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return page.render(
        photos(Picture(image=Image.fromarray(pixels).resize((400, 300)), name=f'a"b {HOSTILE}'))
    )


def test_the_demo_page_says_everything(demo_page: str) -> None:
    said = re.sub(r"\s+", " ", " ".join(read(demo_page).words))
    for words in (
        "It looks at the picture",
        "Answers right: 93% with the picture, 31% with a blank one, 29% with another row's picture",
        "2025-05-28 14:03 UTC",
        "4 min 12 s",
        "1.43 GB at peak",
        "92–94%",
        "left or right",
        "9 of these 12 are right.",
        "✗ mistake",
        "824,320",
        "196,992",
        "frozen",
        "20,000 pictures",
        "isthmus show runs/demo",
        "kind: vision_language_model",
        "transformers 5.23.0",
        "isthmus demo --out runs/demo --seed 0",
    ):
        assert words in said, words
    assert demo_page.count('class="card mistake"') == 3
    assert demo_page.count('class="card right"') == 9


def test_the_photo_page_says_everything(photo_page: str) -> None:
    reader = read(photo_page)
    said = re.sub(r"\s+", " ", " ".join(reader.words))
    for words in (
        "0.462 0.430–0.494",
        "16.2%",
        "text to image",
        "A brown dog runs over dry grass .",
        "with another row's picture:",
        "(nothing)",
        "place 3 of 1,000",
        "✗ right one, place 47",
        "3 ✓ right",
    ):
        assert words in said, words


def test_hostile_text_stays_text(photo_page: str) -> None:
    reader = read(photo_page)
    assert "".join(reader.words).count(HOSTILE) == 2
    assert "onerror" not in {name for _, attributes in reader.attributes for name in attributes}
    assert all(
        attributes["src"].startswith("data:image/") for tag, attributes in reader.attributes if tag == "img"
    )


def test_hostile_text_stays_text_everywhere() -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, Picture) or (isinstance(value, str) and value in ("percent", "number", "sees")):
            return value
        if isinstance(value, str):
            return value and value + HOSTILE + "</style></title></script>{{ 7*7 }}\ud800\x00"
        if isinstance(value, tuple):
            return tuple(spoil(item) for item in value)
        if dataclasses.is_dataclass(value):
            changed = {field.name: spoil(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **changed)
        return value

    picture = Picture(image=Image.new("RGB", (8, 8)), name="a")
    for content in (demo(), photos(picture)):
        before, after = read(page.render(content)), read(page.render(spoil(content)))
        assert after.tags == before.tags
        assert {name for _, a in after.attributes for name in a} == {
            name for _, a in before.attributes for name in a
        }
        assert "</script>49" not in "".join(after.words)


def test_the_page_loads_nothing_and_runs_nothing(demo_page: str, photo_page: str) -> None:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for html in (demo_page, photo_page):
        reader = read(html)
        metas = [attributes for tag, attributes in reader.attributes if tag == "meta"]
        assert any(policy in (meta.get("content") or "") for meta in metas)
        assert not {"script", "link", "iframe", "object", "embed", "form", "a", "base"} & set(reader.tags)
        assert "url(" not in html
        assert "@import" not in html
        assert html.count("http") == html.count("http-equiv") + html.count(
            'xmlns="http://www.w3.org/2000/svg"'
        )
        assert not any(name.startswith("on") for _, attributes in reader.attributes for name in attributes)


def test_no_template_switches_escaping_off() -> None:
    for template in TEMPLATES.glob("*.j2"):
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup|striptags", text), template
    for module in TEMPLATES.parent.glob("*.py"):
        text = module.read_text(encoding="utf-8")
        assert text.count("Markup(") <= (module.name == "svg.py"), module


def test_pictures_have_alt_texts_and_tables_have_headers(demo_page: str, photo_page: str) -> None:
    for html in (demo_page, photo_page):
        reader = read(html)
        assert all(attributes.get("alt") for tag, attributes in reader.attributes if tag == "img")
        assert all(attributes.get("scope") for tag, attributes in reader.attributes if tag == "th")
        charts = [a for tag, a in reader.attributes if tag == "svg" and a.get("class") == "chart"]
        assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
        names = [a["id"] for _, a in reader.attributes if "id" in a]
        assert len(names) == len(set(names))


def test_sections_without_data_are_left_out() -> None:
    html = page.render(ReportContent(header=Header(recipe="tiny/clip")))
    reader = read(html)
    assert "tiny/clip" in "".join(reader.words)
    assert not {"section", "table", "img", "svg", "h2", "details"} & set(reader.tags)


@pytest.mark.parametrize(("state", "headline"), list(page.HEADLINES.items()))
def test_each_verdict_has_its_own_look(state: VerdictState, headline: str) -> None:
    html = page.render(ReportContent(header=Header(recipe="r", verdict=Verdict(text="t", state=state))))
    assert f'<section class="answer {state}"' in html
    assert f'<p class="headline">{headline}</p>' in html


def test_the_lead_is_over_the_best_other_control() -> None:
    controls = Controls(
        controls=tuple(
            standard_control(name, Estimate(value=value))
            for name, value in {"real": 0.9, "blank": 0.3, "blind": 0.41}.items()
        )
    )
    html = page.render(ReportContent(header=Header(recipe="r"), results=Results(controls=controls)))
    assert '<td class="number">+49</td>' in html


def test_missing_values_are_counted_below_the_chart() -> None:
    points = ((1.0, 2.0), (2.0, math.nan), (3.0, 0.0), (4.0, 1.0))
    chart = Chart(title="loss", curves=(Curve(label="train", points=points),), log=True)
    curves = (StageCurves(stage="align", charts=(chart,)),)
    html = page.render(ReportContent(header=Header(recipe="r"), curves=curves))
    assert "2 values are not finite or not above zero and left out." in html


def test_the_page_is_written_whole_and_small(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "report.html"
    size = page.write_report(demo(), path)
    assert path.stat().st_size == size < 500_000
    assert page.write_report(ReportContent(header=Header(recipe="second")), path) < size
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    page.write_report(demo(), path)
    before = path.read_bytes()

    def full(descriptor: int) -> Never:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match="No space left on device"):
        page.write_report(ReportContent(header=Header(recipe="second")), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast_in_both_modes() -> None:
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    for palette in (light, dark):
        pairs = [
            (name, "paper")
            for name in ("ink", "muted", "accent", "good", "bad", "s0", "s1", "s2", "s3", "s4", "s5")
        ]
        pairs += [
            (name, f"{wash}-wash") for wash in ("good", "bad", "doubt") for name in ("ink", "muted", wash)
        ]
        pairs += [
            ("ink", "card"),
            ("muted", "card"),
            ("good", "card"),
            ("bad", "card"),
            ("muted", "track"),
            ("ink", "track"),
        ]
        for text, ground in pairs:
            high, low = sorted((luminance(palette[text]), luminance(palette[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_reports_need_neither_torch_nor_numpy() -> None:
    code = "import sys, isthmus.reports.page; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    source = Path(page.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})
