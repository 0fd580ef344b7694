"""Draws one face and the class of each of its pixels, from random numbers alone.

Units: a head is 2 high (`y` from -1 at the crown to 1 at the chin, `x` to the image's right) until its pose
puts it into the image. Every shape is a coverage, `(S, S)` in 0 .. 1 with edges one pixel soft; a pixel's
class is that of the last part that covers at least half of it, so masks are crisp.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASS_NAMES = (
    "background",
    "skin",
    "hair",
    "left_eye",
    "right_eye",
    "left_brow",
    "right_brow",
    "mouth",
)
BACKGROUND, SKIN, HAIR, LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, MOUTH = range(len(CLASS_NAMES))

_SKIN_TONES = np.array(
    [[0.95, 0.80, 0.70], [0.87, 0.67, 0.53], [0.74, 0.53, 0.39], [0.55, 0.37, 0.26], [0.36, 0.24, 0.18]],
    dtype=np.float32,
)
_HAIR_TONES = np.array(
    [[0.08, 0.06, 0.05], [0.27, 0.17, 0.10], [0.48, 0.30, 0.16], [0.80, 0.64, 0.38], [0.62, 0.61, 0.60]],
    dtype=np.float32,
)
_IRIS_TONES = np.array([[0.20, 0.12, 0.07], [0.25, 0.40, 0.55], [0.28, 0.42, 0.25]], dtype=np.float32)
_LIP_TINT = np.array([0.92, 0.62, 0.62], dtype=np.float32)
_EYE_WHITE = np.array([0.92, 0.91, 0.90], dtype=np.float32)


@dataclass(frozen=True)
class _Frame:
    """Where each pixel lies: `x` and `y` are `(S, S)` float32, one unit is `scale` pixels."""

    x: np.ndarray
    y: np.ndarray
    scale: float

    def moved(self, origin: Sequence[float] | np.ndarray, angle: float = 0.0, zoom: float = 1.0) -> "_Frame":
        """Return the frame with its `(x, y)` origin there, turned, and its unit `zoom` times as long."""
        cos, sin = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
        dx, dy = self.x - np.float32(origin[0]), self.y - np.float32(origin[1])
        return _Frame(cos * dx + sin * dy, cos * dy - sin * dx, self.scale * zoom)

    def inside(self, distance: np.ndarray) -> np.ndarray:
        """Return the coverage of the shape whose points have a positive `distance` to its edge, in units."""
        coverage: np.ndarray = np.clip(distance * np.float32(self.scale) + np.float32(0.5), 0, 1)
        return coverage

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> np.ndarray:
        """Return the coverage of an ellipse with centre `(x, y)` and half axes `rx`, `ry`."""
        radius = np.hypot((self.x - np.float32(x)) / np.float32(rx), (self.y - np.float32(y)) / np.float32(ry))
        return self.inside((1 - radius) * np.float32(min(rx, ry)))

    def box(self, x: float, y: float, rx: float, ry: float) -> np.ndarray:
        """Return the coverage of an upright rectangle with centre `(x, y)` and half sides `rx`, `ry`."""
        return self.inside(np.minimum(rx - np.abs(self.x - np.float32(x)), ry - np.abs(self.y - np.float32(y))))


@dataclass(frozen=True)
class _Head:
    """One person: shape, pose and colours."""

    frame: _Frame
    width: float  # half of it; the half height is 1
    yaw: float  # radians; positive turns the nose to the image's right
    pitch: float  # how far features move down
    skin: np.ndarray  # (3,)
    hair: np.ndarray  # (3,)
    is_bald: bool

    def feature(self, x: float, y: float, tilt: float = 0.0) -> tuple[_Frame, float]:
        """Return the frame of a feature that sits at `(x, y)` of a head seen from the front.

        The turn of the head moves it along a circle and narrows it; the second value is by how much.
        """
        angle = np.arcsin(x / self.width)
        narrowing = max(float(np.cos(angle + self.yaw) / np.cos(angle)), 0.45)
        return self.frame.moved((self.width * np.sin(angle + self.yaw), y + self.pitch), tilt), narrowing


class _Canvas:
    """The image `(3, S, S)` in 0 .. 1 and the mask `(S, S)` while they are drawn."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.image = np.empty((3, size, size), dtype=np.float32)
        self.mask = np.zeros((size, size), dtype=np.uint8)

    def paint(self, coverage: np.ndarray, colour: np.ndarray, label: int | None = None) -> None:
        """Lay `colour`, `(3,)` or `(3, S, S)`, over the image; without a label the classes stay."""
        if colour.ndim == 1:
            colour = colour[:, None, None]
        self.image += coverage * (colour - self.image)
        if label is not None:
            self.mask[coverage >= 0.5] = label

    def chance(self, probability: float) -> bool:
        """Return true with this probability."""
        return bool(self.rng.random() < probability)

    def colour(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return a random colour, `(3,)`."""
        return self.rng.uniform(low, high, 3).astype(np.float32)

    def tone(self, tones: np.ndarray, jitter: float = 0.05) -> np.ndarray:
        """Return a random mixture of two neighbours among `tones`, `(3,)`."""
        position = self.rng.uniform(0, len(tones) - 1)
        first = int(position)
        mixed = tones[first] + (position - first) * (tones[first + 1] - tones[first])
        tone: np.ndarray = np.clip(mixed + self.rng.normal(0, jitter, 3), 0.02, 0.98).astype(np.float32)
        return tone

    def texture(self, n_cells: int) -> np.ndarray:
        """Return smooth noise of `n_cells` bumps each way, `(S, S)`, roughly -1 .. 1."""
        weights = _interpolation(self.size, n_cells)
        grid = self.rng.uniform(-1, 1, (n_cells + 1, n_cells + 1)).astype(np.float32)
        return np.asarray(weights @ grid @ weights.T)


@functools.lru_cache(maxsize=64)
def _interpolation(size: int, n_cells: int) -> np.ndarray:
    """Return `(size, n_cells + 1)` weights that interpolate linearly between `n_cells + 1` knots."""
    positions = np.linspace(0, n_cells, size, dtype=np.float32)
    distances = np.abs(positions[:, None] - np.arange(n_cells + 1, dtype=np.float32))
    weights: np.ndarray = np.clip(1 - distances, 0, 1)
    return weights


def draw_face(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image `(3, size, size)` uint8 of one face and its mask `(size, size)` uint8."""
    canvas = _Canvas(size, rng)
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    page = _Frame(*np.meshgrid(ticks, ticks), scale=size / 2)
    _draw_surroundings(canvas, page)
    head = _new_head(canvas, page)
    has_long_hair = not head.is_bald and canvas.chance(0.4)
    _draw_hair_behind(canvas, head, has_long_hair)
    _draw_body(canvas, head)
    _draw_skull(canvas, head)
    _draw_nose(canvas, head)
    _draw_mouth(canvas, head)
    _draw_eyes(canvas, head)
    _draw_brows(canvas, head)
    _draw_fringe(canvas, head)
    _draw_glasses(canvas, head)
    _draw_patches(canvas, head)
    return _photograph(canvas, page), canvas.mask


def _draw_surroundings(canvas: _Canvas, page: _Frame) -> None:
    """Fill the background: a gradient, texture, and ellipses of which some have a face's colours."""
    rng = canvas.rng
    slope = rng.normal(0, 0.12, (3, 2)).astype(np.float32)[:, :, None, None]
    canvas.image[:] = canvas.colour(0.1, 0.9)[:, None, None] + slope[:, 0] * page.x + slope[:, 1] * page.y
    canvas.image += rng.uniform(0, 0.15) * canvas.texture(int(rng.integers(3, 16)))
    for _ in range(rng.integers(0, 6)):
        frame = page.moved(rng.uniform(-1, 1, 2), rng.uniform(0, np.pi))
        colour = (
            canvas.tone(_SKIN_TONES),
            canvas.tone(_HAIR_TONES),
            canvas.colour(),
        )[rng.integers(3)]
        canvas.paint(frame.ellipse(0, 0, *rng.uniform(0.06, 0.4, 2)), colour)


def _new_head(canvas: _Canvas, page: _Frame) -> _Head:
    rng = canvas.rng
    angle = float(np.clip(rng.normal(0, 0.17), -0.5, 0.5))
    frame = page.moved(rng.normal(0, 0.08, 2), angle, rng.uniform(0.64, 0.82))
    return _Head(
        frame=frame,
        width=rng.uniform(0.72, 0.86),
        yaw=rng.uniform(-0.45, 0.45),
        pitch=rng.uniform(-0.1, 0.1),
        skin=canvas.tone(_SKIN_TONES),
        hair=canvas.colour(0.1, 0.9) if canvas.chance(0.1) else canvas.tone(_HAIR_TONES),
        is_bald=canvas.chance(0.06),
    )


def _hair_colour(canvas: _Canvas, head: _Head) -> np.ndarray:
    """Return `(3, S, S)`: the hair's colour in strands."""
    strands = canvas.texture(int(canvas.rng.integers(6, 24)))
    return head.hair[:, None, None] * (1 + np.float32(0.35) * strands) + np.float32(0.03) * strands


def _draw_hair_behind(canvas: _Canvas, head: _Head, is_long: bool) -> None:
    if head.is_bald:
        return
    rng, frame = canvas.rng, head.frame
    volume = rng.uniform(1.06, 1.3)
    coverage = frame.ellipse(-0.1 * head.yaw, -0.18, head.width * volume, 1.0 + 0.5 * (volume - 1))
    if is_long:
        width, length = head.width * rng.uniform(1.0, 1.25), rng.uniform(0.5, 1.3)
        coverage = np.maximum(coverage, frame.box(-0.15 * head.yaw, length / 2 - 0.2, width, length / 2 + 0.2))
    canvas.paint(coverage, _hair_colour(canvas, head), HAIR)


def _draw_body(canvas: _Canvas, head: _Head) -> None:
    """Draw the neck (skin) and the clothes (background)."""
    rng, frame = canvas.rng, head.frame
    canvas.paint(frame.box(-0.1 * head.yaw, 1.0, rng.uniform(0.36, 0.48), 0.45), 0.82 * head.skin, SKIN)
    clothes = np.maximum(
        frame.ellipse(0, 1.95, rng.uniform(1.2, 1.6), rng.uniform(0.6, 0.75)),
        frame.box(0, 3.0, 1.5, 1.0),
    )
    canvas.paint(clothes, canvas.colour(0.05, 0.95), BACKGROUND)


def _draw_skull(canvas: _Canvas, head: _Head) -> None:
    """Draw ears, head and shading; a beard has the hair's colour and the class of skin."""
    rng, frame = canvas.rng, head.frame
    for side in (-1, 1):
        ear = frame.ellipse(side * head.width - 0.25 * head.yaw, 0.02, 0.12, 0.2)
        canvas.paint(ear, 0.88 * head.skin, SKIN)
    chin = rng.uniform(0.1, 0.3)
    width = head.width * (1 - np.float32(chin) * np.clip(frame.y, 0, 1) ** 2)
    skull = frame.inside((1 - np.hypot(frame.x / width, frame.y)) * np.float32(head.width))
    light = rng.normal(0, 0.14, 2).astype(np.float32)
    shade = 1 + light[0] * frame.x + light[1] * frame.y
    shade += np.float32(rng.uniform(0, 0.08)) * canvas.texture(int(rng.integers(6, 20)))
    colour = head.skin[:, None, None] * shade
    if canvas.chance(0.18):
        beard = np.clip((frame.y - np.float32(rng.uniform(0.2, 0.5))) * 4, 0, 1)
        colour = colour + beard * np.float32(rng.uniform(0.4, 0.9)) * (head.hair[:, None, None] - colour)
    canvas.paint(skull, colour, SKIN)


def _draw_nose(canvas: _Canvas, head: _Head) -> None:
    """Draw the nose and its shadow; both are skin."""
    rng = canvas.rng
    frame, narrowing = head.feature(0.0, 0.15)
    lean = 0.12 * head.yaw
    strength = np.float32(rng.uniform(0.08, 0.3))
    shadow = frame.ellipse(lean + 0.07 * np.sign(head.yaw), 0.0, 0.09 * narrowing, 0.26)
    canvas.paint(strength * shadow, 0.45 * head.skin)
    for side in (-1, 1):
        canvas.paint(0.7 * frame.ellipse(lean + side * 0.08 * narrowing, 0.2, 0.05, 0.035), 0.3 * head.skin)


def _draw_mouth(canvas: _Canvas, head: _Head) -> None:
    rng = canvas.rng
    frame, narrowing = head.feature(0.0, rng.uniform(0.47, 0.58), rng.normal(0, 0.06))
    width, height = rng.uniform(0.25, 0.37) * narrowing, rng.uniform(0.09, 0.13)
    bend = np.float32(rng.uniform(-0.5, 1.1))
    y = frame.y + bend * (frame.x**2 - np.float32(width**2 / 3))
    bent = _Frame(frame.x, y, frame.scale)
    lips = head.skin * (1 + rng.uniform(0.4, 1.0) * (_LIP_TINT - 1)) * rng.uniform(0.8, 1.0)
    opening = rng.uniform(0.0, 0.12) if canvas.chance(0.4) else 0.0
    canvas.paint(bent.ellipse(0, 0, width, height + opening), lips.astype(np.float32), MOUTH)
    inner_colour = _EYE_WHITE if opening and canvas.chance(0.5) else 0.35 * lips
    inner = bent.ellipse(0, 0, 0.75 * width, max(opening, 0.025))
    canvas.paint(inner, inner_colour.astype(np.float32))


def _draw_eyes(canvas: _Canvas, head: _Head) -> None:
    rng = canvas.rng
    x, y, tilt = rng.uniform(0.32, 0.38), rng.uniform(-0.16, -0.08), rng.normal(0, 0.08)
    width = rng.uniform(0.18, 0.23)
    height = rng.uniform(0.09, 0.14)
    gaze = rng.uniform(-0.06, 0.06, 2)
    iris = canvas.tone(_IRIS_TONES)
    white = _EYE_WHITE * np.float32(rng.uniform(0.75, 1.0))
    is_closed = canvas.chance(0.06)
    for side, label in ((-1, LEFT_EYE), (1, RIGHT_EYE)):
        frame, narrowing = head.feature(side * x, y, side * tilt)
        canvas.paint(0.6 * frame.ellipse(0, -0.03, 1.2 * narrowing * width, height + 0.03), 0.55 * head.skin)
        opened = frame.ellipse(0, 0, narrowing * width, height)
        if is_closed:
            canvas.paint(opened, 0.8 * head.skin, label)
            canvas.paint(frame.ellipse(0, 0.5 * height, narrowing * width, 0.03), 0.3 * head.skin)
            continue
        canvas.paint(opened, white, label)
        seen = frame.ellipse(gaze[0], gaze[1] * 0.5, 0.085 * narrowing, 0.085)
        canvas.paint(opened * seen, iris)
        canvas.paint(opened * frame.ellipse(gaze[0], gaze[1] * 0.5, 0.04, 0.04), np.zeros(3, np.float32))


def _draw_brows(canvas: _Canvas, head: _Head) -> None:
    rng = canvas.rng
    x, y, tilt = rng.uniform(0.33, 0.39), rng.uniform(-0.44, -0.33), rng.normal(0, 0.12)
    width, height = rng.uniform(0.22, 0.28), rng.uniform(0.065, 0.1)
    bend = np.float32(rng.uniform(0.0, 1.4))
    colour = head.hair * np.float32(rng.uniform(0.5, 0.95))
    if head.is_bald or canvas.chance(0.15):
        colour = head.skin * np.float32(rng.uniform(0.4, 0.65))
    for side, label in ((-1, LEFT_BROW), (1, RIGHT_BROW)):
        frame, narrowing = head.feature(side * x, y, side * tilt)
        bent = _Frame(frame.x, frame.y - bend * frame.x**2, frame.scale)
        canvas.paint(bent.ellipse(0, 0, narrowing * width, height), colour, label)


def _draw_fringe(canvas: _Canvas, head: _Head) -> None:
    """Draw the hair in front of the head: down to a line that sometimes passes the brows."""
    if head.is_bald:
        return
    rng, frame = canvas.rng, head.frame
    line = rng.uniform(-0.4, -0.15) if canvas.chance(0.15) else rng.uniform(-0.82, -0.58)
    parting = rng.uniform(-0.3, 0.3) + 0.3 * head.yaw
    from_parting = frame.x - np.float32(parting)
    edge = line + rng.uniform(-0.25, 0.5) * np.abs(from_parting) + rng.uniform(-0.1, 0.5) * from_parting**2
    edge = edge + np.float32(rng.uniform(0, 0.1)) * canvas.texture(int(rng.integers(5, 12)))
    cap = frame.ellipse(0, -0.05, head.width * 1.05, 1.04)
    canvas.paint(cap * frame.inside(edge - frame.y), _hair_colour(canvas, head), HAIR)


def _draw_glasses(canvas: _Canvas, head: _Head) -> None:
    """Draw glasses on some: rims, and the lenses of sunglasses, are background."""
    if not canvas.chance(0.16):
        return
    rng = canvas.rng
    is_dark = canvas.chance(0.25)
    colour = canvas.colour(0.0, 0.5)
    radius, rim = rng.uniform(0.25, 0.3), rng.uniform(0.045, 0.06)
    centres = []
    for side in (-1, 1):
        frame, narrowing = head.feature(side * 0.35, -0.1)
        lens = frame.ellipse(0, 0, narrowing * radius, 0.85 * radius)
        ring = lens * (1 - frame.ellipse(0, 0, narrowing * (radius - rim), 0.85 * radius - rim))
        canvas.paint(lens if is_dark else ring, colour, BACKGROUND)
        centres.append(head.width * np.sin(np.arcsin(side * 0.35 / head.width) + head.yaw))
    middle = head.frame.box((centres[0] + centres[1]) / 2, head.pitch - 0.14, 0.1, rim / 2)
    canvas.paint(middle, colour, BACKGROUND)


def _draw_patches(canvas: _Canvas, head: _Head) -> None:
    """Put things in front of some faces: hands (of the skin's colour) or anything; all are background."""
    rng = canvas.rng
    if canvas.chance(0.12):
        hand = head.frame.moved(rng.uniform(-0.8, 0.8, 2), rng.uniform(0, 2 * np.pi))
        palm = hand.ellipse(0, 0, 0.26, 0.3)
        for finger in range(4):
            coverage = hand.ellipse(0.13 * finger - 0.2, -0.42, 0.055, 0.26)
            canvas.paint(coverage, np.float32(0.95 - 0.04 * finger) * head.skin, BACKGROUND)
        canvas.paint(palm, np.float32(0.9) * head.skin, BACKGROUND)
    if canvas.chance(0.15):
        frame = head.frame.moved(rng.uniform(-0.9, 0.9, 2), rng.uniform(0, np.pi))
        shape = frame.ellipse if canvas.chance(0.5) else frame.box
        canvas.paint(shape(0, 0, *rng.uniform(0.1, 0.32, 2)), canvas.colour(), BACKGROUND)


def _photograph(canvas: _Canvas, page: _Frame) -> np.ndarray:
    """Return the image as a camera would take it: lit from a side, tinted, blurred, noisy; uint8."""
    rng, image = canvas.rng, canvas.image
    light = rng.normal(0, 0.22, 2).astype(np.float32)
    image *= np.float32(rng.uniform(0.65, 1.15)) * np.clip(1 + light[0] * page.x + light[1] * page.y, 0.3, 1.7)
    image *= rng.normal(1, 0.06, (3, 1, 1)).astype(np.float32)
    if canvas.chance(0.2):
        image += np.float32(rng.uniform(0.4, 1.0)) * (image.mean(axis=0) - image)
    if canvas.chance(0.5):
        image = _blurred(image, rng.uniform(0.3, 0.9) * canvas.size / 64)
    image = image + rng.normal(0, 1, image.shape).astype(np.float32) * np.float32(rng.uniform(0.005, 0.04))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return `(3, S, S)` under a Gaussian of `sigma` pixels, edges repeated."""
    reach = max(1, int(np.ceil(2 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    size = image.shape[-1]
    for axis in (1, 2):
        padded = np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(3)], mode="edge")
        windows = [padded.take(np.arange(k, k + size), axis=axis) for k in range(len(kernel))]
        image = np.tensordot(kernel, np.stack(windows), axes=1)
    return image
