"""The drawing of an encoder with a decoder of cells: a bus of coloured lanes, one for each feature, feeds the cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.blocks.cells import Branch, Cell
from search_spaces.drawing.svg import Box, Drawing

_COLORS = ("#1f6feb", "#d97706", "#188038", "#a142f4", "#c5221f", "#00838f", "#7a5c00", "#ad1457")
_TOP, _GAP = 56.0, 14.0
_ENCODER = Box(16, _TOP, 120, 34)
_LANE_PITCH = 14.0
_TERM_HEIGHT, _TERM_PITCH, _TERM_WIDTH = 26.0, 32.0, 190.0
_MERGE_WIDTH = 84.0


@dataclass(frozen=True)
class CellGraph:
    """What is drawn.

    Attributes:
        levels: Of the encoder, by source number: a name such as `"s4"` and its channels.
        cells: By source number, in order; the last one gives the output.
        names: Of all sources, by number.
        operation_names: What the terms' indices mean.
        width: Channels of the decoder.
        head: Of the output.
    """

    levels: Mapping[int, tuple[str, int]]
    cells: Mapping[int, Cell]
    names: Mapping[int, str]
    operation_names: Sequence[str]
    width: int
    head: str


def draw_cells(graph: CellGraph, title: str) -> str:
    """Return the SVG of `graph`: the encoder on the left, cells from top to bottom, the head at the last of them."""
    sketch = _Sketch(graph)
    sketch.drawing.text(_ENCODER.x, 26, title, look="strong")
    sketch.encoder()
    if not graph.cells:
        sketch.nothing()
    y = _TOP
    for source, cell in graph.cells.items():
        y = sketch.cell(source, cell, y)
    sketch.lanes()
    return sketch.drawing.to_svg(title)


class _Sketch:
    """A drawing under way: where lanes run and which heights they have to reach."""

    def __init__(self, graph: CellGraph) -> None:
        self.drawing = Drawing()
        self._graph = graph
        self._last = max(graph.cells, default=None)
        read = {term.source for cell in graph.cells.values() for branch in cell for term in branch}
        self._lanes = {source: index for index, source in enumerate(sorted(read))}
        self._taps: dict[int, list[float]] = {source: [] for source in read}
        self._cells_x = _ENCODER.right + 34 + _LANE_PITCH * len(read)

    def _lane_x(self, source: int) -> float:
        return _ENCODER.right + 24 + _LANE_PITCH * self._lanes[source]

    def _color(self, source: int) -> str:
        return _COLORS[source % len(_COLORS)]

    def encoder(self) -> None:
        """Draw the levels that are built, each feeding the next and its lane."""
        self.drawing.text(_ENCODER.x, _TOP - 10, "encoder", look="dim")
        below: Box | None = None
        for row, (source, (name, channels)) in enumerate(self._graph.levels.items()):
            box = _ENCODER._replace(y=_TOP + row * (_ENCODER.height + 22))
            self.drawing.box(box, fill="#eef2f7", stroke=self._color(source), text=f"{name}: {channels} channels")
            if below:
                x = box.x + box.width / 2
                self.drawing.line([(x, below.bottom), (x, box.y)], arrow=True)
            if source in self._lanes:
                self._tap(source, box.middle)
                self.drawing.line(
                    [(box.right, box.middle), (self._lane_x(source), box.middle)], color=self._color(source)
                )
            below = box

    def nothing(self) -> None:
        """Draw a decoder without cells, whose output is zero."""
        box = Box(self._cells_x, _TOP, 150, _ENCODER.height)
        self.drawing.box(box, text="no cells: zero")
        self._head(box.right, box.middle)

    def cell(self, source: int, cell: Cell, top: float) -> float:
        """Draw a cell from `top` on, and return where the next one starts."""
        n_terms = sum(map(len, cell))
        height = _TERM_PITCH * n_terms + 8 * (len(cell) - 1) + 20
        frame = Box(self._cells_x, top, _TERM_WIDTH + _MERGE_WIDTH + 100, height)
        self.drawing.box(frame, fill="#fafbfc", stroke="#cbd2d9")
        self.drawing.text(frame.x, frame.y - 5, f"cell {self._graph.names[source]}", look="dim")
        merge = Box(frame.right - _MERGE_WIDTH - 14, top + 12, _MERGE_WIDTH, height - 24)
        y = top + 12
        for branch in cell:
            y = self._branch(branch, y, merge) + 8
        color = self._color(source)
        self.drawing.box(merge, fill="#ffffff", stroke=color)
        lines = [*(["concat"] if len(cell) > 1 else []), "conv 1x1", f"{self._graph.width} channels"]
        for row, text in enumerate(lines):
            y = merge.middle + 12 + 16 * (row - len(lines) / 2)
            self.drawing.text(merge.x + merge.width / 2, y, text, anchor="middle")
        if source == self._last:
            self._head(frame.right, merge.middle, start=merge.right)
            return frame.bottom
        under = frame.bottom + _GAP
        self._tap(source, under)
        corner = frame.right + 14
        path = [(merge.right, merge.middle), (corner, merge.middle), (corner, under), (self._lane_x(source), under)]
        self.drawing.line(path, color=color)
        return under + _GAP + 18

    def _branch(self, branch: Branch, y: float, merge: Box) -> float:
        """Draw the terms of a branch from `y` on, their sum, and its way into `merge`; return where it ends."""
        x = self._cells_x + 22
        boxes = [Box(x, y + row * _TERM_PITCH, _TERM_WIDTH, _TERM_HEIGHT) for row in range(len(branch))]
        middle = (boxes[0].middle + boxes[-1].middle) / 2
        plus = boxes[0].right + 24
        for term, box in zip(branch, boxes, strict=True):
            color = self._color(term.source)
            self._tap(term.source, box.middle)
            self.drawing.line([(self._lane_x(term.source), box.middle), (box.x, box.middle)], color=color, arrow=True)
            name = self._graph.operation_names[term.operation]
            self.drawing.box(box, stroke=color, text=f"{name}({self._graph.names[term.source]})")
            self.drawing.line([(box.right, box.middle), (plus, box.middle), (plus, middle)])
        self.drawing.line([(plus, middle), (merge.x, middle)], arrow=True)
        if len(branch) > 1:
            self.drawing.dot(plus, middle, radius=9, text="+")
        return boxes[-1].bottom

    def _head(self, right: float, y: float, start: float | None = None) -> None:
        box = Box(right + 30, y - 17, 130, 34)
        self.drawing.line([(right if start is None else start, y), (box.x, y)], arrow=True)
        self.drawing.box(box, fill="#eef2f7", text=f"{self._graph.head} head")
        self.drawing.line([(box.right, y), (box.right + 24, y)], arrow=True)
        self.drawing.text(box.right + 30, y + 4, "logits")

    def _tap(self, source: int, y: float) -> None:
        if source in self._taps:
            self._taps[source].append(y)

    def lanes(self) -> None:
        """Draw the lanes over the heights at which they are fed and read, with a dot at each."""
        for source, heights in self._taps.items():
            x, color = self._lane_x(source), self._color(source)
            self.drawing.line([(x, min(heights)), (x, max(heights))], color=color)
            for y in heights:
                self.drawing.dot(x, y, color=color)
