"""Drawings of networks as SVG, written by hand: no library, no layout engine."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = (
    "text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:12px;fill:#1f2933}"
    ".dim{fill:#66727f}.strong{font-weight:600}"
)


class Box(NamedTuple):
    """A rectangle in pixels, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The y half way down."""
        return self.y + self.height / 2


class Drawing:
    """Collects shapes, later ones over earlier ones; all text is escaped."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._width = self._height = 0.0

    def box(self, box: Box, *, fill: str = "#ffffff", stroke: str = "#9aa5b1", text: str = "") -> None:
        """Draw a rectangle with round corners and `text` in its middle."""
        self._reach(box.right, box.bottom)
        self._shapes.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="5" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )
        if text:
            self.text(box.x + box.width / 2, box.middle + 4, text, anchor="middle")

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", look: str = "") -> None:
        """Write one line whose baseline is at `y`; `look` is `"dim"`, `"strong"` or empty."""
        self._reach(x + 7.5 * len(text) * {"start": 1, "middle": 0.5}.get(anchor, 0), y)
        self._shapes.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{look}">{_escaped(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]], *, color: str = "#52606d", arrow: bool = False) -> None:
        """Join `points` by straight lines, with an arrow's head at the last of them if asked for."""
        for x, y in points:
            self._reach(x, y)
        joined = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
            corners = ((x, y), (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx))
            self._shapes.append(
                f'<polygon points="{" ".join(f"{a:g},{b:g}" for a, b in corners)}" fill="{color}" stroke="none"/>'
            )

    def dot(self, x: float, y: float, *, radius: float = 3, color: str = "#52606d", text: str = "") -> None:
        """Draw a filled circle, or with `text` a white one around it."""
        fill = "#ffffff" if text else color
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{color}"/>')
        if text:
            self.text(x, y + 4, text, anchor="middle")

    def to_svg(self, title: str) -> str:
        """Return the whole as a document of its own, as large as what was drawn; `title` is what readers hear."""
        width, height = self._width + 16, self._height + 16
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
                f'height="{height:g}" role="img">',
                f"<title>{_escaped(title)}</title>",
                f"<style>{_STYLE}</style>",
                f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
                *self._shapes,
                "</svg>\n",
            ]
        )

    def _reach(self, x: float, y: float) -> None:
        self._width, self._height = max(self._width, x), max(self._height, y)


def _escaped(text: str) -> str:
    """Return text for an XML document, which must not hold control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text), quote=False)


def draw_lines(title: str, lines: Sequence[str]) -> str:
    """Return an SVG of text: what is drawn of a network whose space has no drawing of its own."""
    drawing = Drawing()
    drawing.text(16, 28, title, look="strong")
    for row, line in enumerate(lines):
        drawing.text(16, 52 + 20 * row, line)
    return drawing.to_svg(title)
