"""The one place where a file's bytes become pixels: an image as viewers show it, a mask as the values that it holds.

What is decided here, and in docs/own_data.md for users:

- EXIF orientation is applied, to images and masks.
- A colour profile other than sRGB is applied; one that is broken or of another colour space is not, as in viewers.
- What is transparent shows white.
- Of 16 bits a channel the upper 8 are read. Floating-point images are refused.
- Of several frames the first is read; a mask must have one.
- Images of more than `MAX_PIXELS` are refused before they are decoded.
- Whatever a decoder raises becomes a `DataError`.
"""

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.faults import shown_path
from nas.errors import DataError, DataFault, InputError
from nas.files import require_regular

_MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 100_000_000  # of which the costliest kind, 16 bits of grey, takes 1.8 GiB
"""Half a gigabyte in RGB; from here on Pillow takes a small file for an attack on memory."""

CHANNEL_MODES = {1: "L", 3: "RGB"}

# Pillow only recognises these, or would start another program to draw them.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_CONVERTIBLE = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
_LOSSY = frozenset({"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"})
_ORIENTATION_TAG = 0x0112
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_EXTRAS = (b"Exif", b"ICC_PROFILE", b"http://ns.adobe.com/xap")  # orientation stands in the last, too
_SHALLOW_FACTORS = {"L;2": 85, "L;4": 17}  # by which Pillow spreads grey of 2 and 4 bits over 0 .. 255
_DARK_BELOW = 4096  # what cameras of 12 bits write into 16
_warnings_lock = threading.Lock()

Source = Path | bytes
Note = Callable[[str], None]


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are decoded."""
    Image.init()
    return tuple(sorted(set(Image.registered_extensions().values()) & set(Image.OPEN) - _NOT_DECODED))


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in small letters, of the files that are images."""
    known = set(image_formats())
    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in known)


def decode_image(source: Source, on_note: Note | None = None) -> Image.Image:
    """Return an image as a viewer shows it, in a mode of 8 bits that converts to grey and RGB.

    Args:
        source: A file, or a file's content.
        on_note: Called with what is doubtful about it, in words that follow "images that".

    Raises:
        DataError: If it cannot be decoded, or holds floating-point numbers.
    """
    with _opened(source) as image:
        if on_note is not None and image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            on_note("hold several frames, of which the first is read")
        orientation = _orientation(image)
        image.load()
        profile = image.info.get("icc_profile")
        shown = _without_transparency(_of_8_bits(source, image, on_note))
        if shown.mode not in _CONVERTIBLE:
            shown = shown.convert("RGB")
        if profile:
            shown = _in_srgb(shown, profile)
        return _turned(shown, orientation)


def decode_mask(source: Source) -> np.ndarray:
    """Return a mask's values as they are stored, `(H, W)` integers; of a palette its indices.

    Raises:
        DataError: If it cannot be decoded, is coloured, or its format changes values.
    """
    with _opened(source) as image:
        values = _mask_values(source, image)
    if values.ndim == 2:
        return values
    if (values == values[..., :1]).all():  # grey, saved in three channels
        return values[..., 0]
    colours = ", ".join(map(str, colours_of(values)[:8].tolist()))
    raise _refused(
        source,
        f"holds colours ({colours}), must hold class indices",
        group="masks hold colours, must hold class indices",
        remedy="write the colour of each class as `data: {mask_colors: [[R, G, B], ...]}`, in order of class_names",
    )


def decode_colours(source: Source) -> np.ndarray:
    """Return a mask's colours, `(H, W, 3)` uint8; of a palette those that it names.

    Raises:
        DataError: If it cannot be decoded, or its format changes values.
    """
    with _opened(source) as image:
        _check_mask(source, image)
        orientation = _orientation(image)
        image.load()
        if image.has_transparency_data:
            _check_opaque(source, image.convert("RGBA"))
        return np.asarray(_turned(image.convert("RGBA").convert("RGB"), orientation))


def decode_plane(source: Source) -> np.ndarray:
    """Return a drawing in black and white, of one channel or three, as grey values `(H, W)` uint8.

    Raises:
        DataError: If it cannot be decoded.
    """
    with _opened(source) as image:
        orientation = _orientation(image)
        image.load()
        return np.asarray(_turned(_of_8_bits(source, image, None).convert("L"), orientation))


def colours_of(pixels: np.ndarray) -> np.ndarray:
    """Return the colours, sorted, that are in `(..., 3)` uint8 pixels, `(n, 3)`."""
    codes = np.unique(colour_codes(pixels))
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def colour_codes(pixels: np.ndarray) -> np.ndarray:
    """Return one number for each colour of `(..., 3)` pixels."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    codes: np.ndarray = red << 16 | green << 8 | blue
    return codes


def to_array(image: Image.Image, in_channels: int, image_size: tuple[int, int]) -> np.ndarray:
    """Return an image as `(C, H, W)` uint8, resized bilinearly (over the covered area when it shrinks).

    Args:
        image: As `decode_image` returns it.
        in_channels: 1 for grey, 3 for colour.
        image_size: Height and width of the result.
    """
    image = image.convert(CHANNEL_MODES[in_channels])
    height, width = image_size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if in_channels == 1 else pixels.transpose(2, 0, 1))


def probe_image(source: Source) -> None:
    """Read an image's header, which costs far less than decoding it.

    Raises:
        DataError: If there is none that can be read.
    """
    with _opened(source):
        pass


def size_and_channels(source: Source) -> tuple[tuple[int, int], int]:
    """Return height and width of an image as it is shown, and 1 if it is grey, else 3, from its header.

    Raises:
        DataError: If there is none that can be read.
    """
    with _opened(source) as image:
        is_grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        height, width = image.height, image.width
        if _may_be_turned(source, image) and _orientation(image) >= 5:
            height, width = width, height
    return (height, width), 1 if is_grey else 3


def is_read_anew(source: Source, *, is_mask: bool) -> bool:
    """Whether an image is read otherwise than by earlier versions, which knew neither orientation nor profiles.

    Only then is it more than a file's content that a cache key has to tell.
    """
    if isinstance(source, bytes) and source.startswith(b"\xff\xd8") and not any(map(source.__contains__, _JPEG_EXTRAS)):
        return False
    try:
        with _opened(source) as image:
            profile = image.info.get("icc_profile") if not is_mask else None
            shallow = is_mask and _shallow_factor(image) != 1
            turned = _may_be_turned(source, image) and _orientation(image) != 1
            if not (turned or shallow or profile or (image.has_transparency_data and not is_mask)):
                return False
            image.load()
            if is_mask:
                before = np.asarray(image)
            else:
                before = np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB"))
        now = decode_mask(source) if is_mask else np.asarray(decode_image(source).convert("RGB"))
    except (DataError, ValueError):  # a fault now, or then: nothing was kept of it
        return False
    return not np.array_equal(before, now)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """Yield an image of which the header is read; whatever a decoder raises becomes a `DataError`."""
    try:
        if isinstance(source, Path) and source.exists():
            require_regular(source, _MAX_FILE_BYTES)
        with _warnings_lock, warnings.catch_warnings():  # of large images, which have a bound of ours
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=image_formats())
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise _refused(source, f"has {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")
            yield image
    except DataError:
        raise
    except InputError as error:
        raise DataError([str(error)]) from error
    except Image.DecompressionBombError as error:
        raise _refused(source, f"has too many pixels, at most {MAX_PIXELS:,} are read") from error
    except MemoryError as error:
        raise _refused(source, "takes more memory than there is") from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing of foreign bytes meets
        raise _unreadable(source, error) from error


def _refused(source: Source, text: str, *, group: str = "", remedy: str = "") -> DataError:
    return DataError([DataFault(_name(source), text, group, remedy)])


def _name(source: Source) -> str:
    return "image" if isinstance(source, bytes) else shown_path(source)


def _unreadable(source: Source, error: Exception) -> DataError:
    # Pillow repeats the path, or an object's address, in some of its messages.
    is_foreign = "cannot identify" in str(error)
    reason = "not an image" if is_foreign else shown_path(" ".join(str(error).split()) or type(error).__name__)
    return _refused(
        source,
        f"cannot be read as an image ({reason})",
        group="files cannot be read as images",
        remedy="mend or remove what is broken",
    )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 .. 8; 1, as stored, where there is none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - broken EXIF data, which no viewer takes for a broken image
        return 1
    return orientation if orientation in _TRANSPOSED else 1


def _may_be_turned(source: Source, image: Any) -> bool:
    """Whether it is worth asking for the orientation, for which Pillow decodes a PNG file whole."""
    if image.format != "PNG":
        return True
    content = source if isinstance(source, bytes) else source.read_bytes()
    return any(word in content for word in (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp"))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TRANSPOSED[orientation])


def _of_8_bits(source: Source, image: Image.Image, on_note: Note | None) -> Image.Image:
    """Return an image with the upper 8 of 16 bits, as viewers show it."""
    if image.mode == "F":
        raise _refused(
            source,
            "holds floating-point numbers, must hold 8 or 16 bits a channel",
            group="images hold floating-point numbers, must hold 8 or 16 bits a channel",
        )
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() >= 1 << 16:
        raise _refused(source, f"holds values up to {values.max()}, must hold 8 or 16 bits a channel")
    if on_note is not None and 0 < values.max() < _DARK_BELOW:
        on_note("have 16 bits and use the lowest 12 at most, read nearly black as viewers show them")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _without_transparency(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layers = image.convert("RGBA")
    if _is_opaque(layers):
        return image if "transparency" not in image.info else layers
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image whose colours are meant as `profile` says, in those of screens."""
    from PIL import ImageCms  # noqa: PLC0415 - rarely needed, and costs a library

    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(meant).lower():
            return image
        shown = ImageCms.profileToProfile(image, meant, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # broken, or not of this image's kind of colours
        return image
    assert shown is not None  # noqa: S101 - only with inPlace
    return shown


def _check_mask(source: Source, image: Any) -> None:
    is_lossy = image.format in _LOSSY or image.info.get("compression") == "jpeg"
    if is_lossy:
        form = image.format if image.format in _LOSSY else "JPEG"
        raise _refused(
            source,
            f"is a {form}, whose compression changes class indices",
            group="masks are in a format whose compression changes class indices",
            remedy="save masks as PNG, from where they were drawn",
        )
    if getattr(image, "n_frames", 1) > 1:
        raise _refused(source, f"holds {image.n_frames} frames, a mask must hold one")


def _mask_values(source: Source, image: Any) -> np.ndarray:
    """Return `(H, W)` integers, or `(H, W, 3)` colours."""
    _check_mask(source, image)
    factor, orientation = _shallow_factor(image), _orientation(image)  # in this order: the second may decode
    image.load()
    if image.mode == "F":
        raise _refused(source, "holds floating-point numbers, must hold class indices")
    if image.mode in ("LA", "RGBA", "La", "RGBa"):
        _check_opaque(source, image)
        image = image.convert(image.mode[:-1])
    elif image.mode not in ("1", "L", "P", "RGB") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    if orientation != 1 and image.mode.startswith("I;"):
        image = image.convert("I")
    values = np.asarray(_turned(image, orientation))
    return values.astype(np.uint8) if values.dtype == bool else values // np.asarray(factor, dtype=values.dtype)


def _is_opaque(image: Image.Image) -> bool:
    return bool(np.asarray(image.getchannel("A")).min() == 255)


def _check_opaque(source: Source, image: Image.Image) -> None:
    if not _is_opaque(image):
        raise _refused(
            source,
            "is partly transparent, must hold class indices",
            group="masks are partly transparent, must hold class indices",
            remedy="save masks without transparency",
        )


def _shallow_factor(image: Any) -> int:
    """Return what Pillow multiplies stored grey values by."""
    modes = [tile[3] for tile in image.tile]
    first = modes[0] if modes else ""
    return _SHALLOW_FACTORS.get(first if isinstance(first, str) else str(first[0]) if first else "", 1)
