"""Small SVG drawings for an HTML page: every label and attribute is escaped by the XML writer."""

from xml.etree import ElementTree

from markupsafe import Markup


def add(
    parent: ElementTree.Element, tag: str, attributes: dict[str, str | float], text: str = ""
) -> ElementTree.Element:
    """Append an element; numbers are written with at most two decimals."""
    written = {
        name: value if isinstance(value, str) else f"{round(value, 2):g}"
        for name, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, tag, written)
    if text:
        element.text = text
    return element


def drawing(width: float, height: float, description: str) -> ElementTree.Element:
    """Return an empty SVG drawing that screen readers announce by its description."""
    return ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:g} {height:g}",
            "class": "chart",
            "role": "img",
            "aria-label": description,
        },
    )


def markup(root: ElementTree.Element) -> Markup:
    """Return the drawing as text that a template may insert: the XML writer has escaped every label in it."""
    return Markup(ElementTree.tostring(root, encoding="unicode"))
