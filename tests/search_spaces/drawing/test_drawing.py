from xml.etree import ElementTree

from search_spaces.drawing.svg import Box, Drawing, draw_lines


def test_text_is_escaped():
    hostile = "</text><script>alert(1)</script> & more"
    drawing = draw_lines(hostile, [hostile])
    assert "<script>" not in drawing
    tree = ElementTree.fromstring(drawing)
    assert [element.text for element in tree.iter() if element.tag.endswith(("title", "text"))] == [hostile] * 3


def test_the_page_holds_everything_that_is_drawn():
    drawing = Drawing()
    drawing.box(Box(10, 20, 100, 30), text="a")
    drawing.line([(0, 0), (300, 200)], arrow=True)
    drawing.dot(5, 5)
    svg = ElementTree.fromstring(drawing.to_svg("t"))
    assert (svg.get("viewBox"), svg.get("width"), svg.get("height")) == ("0 0 316 216", "316", "216")
