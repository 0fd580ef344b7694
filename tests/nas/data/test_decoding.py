"""Bytes become pixels in one place: what viewers show, and what masks hold."""

import io
import re
import warnings
from pathlib import Path

import numpy as np
import PIL.EpsImagePlugin
import pytest
from PIL import Image, ImageCms, ImageOps

from nas.data import ImageFolder, ImageMaskFolder, Split
from nas.data.decoding import (
    decode_colours,
    decode_image,
    decode_mask,
    image_suffixes,
    is_read_anew,
    size_and_channels,
    to_array,
)
from nas.errors import DataError

ORIENTATIONS = range(1, 9)


def picture() -> np.ndarray:
    """Return `(6, 4, 3)` pixels no turn of which is equal to another."""
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def shown(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_images_are_turned_as_pillow_turns_them(tmp_path, orientation):
    path = tmp_path / "x.png"
    Image.fromarray(picture()).save(path, exif=exif(orientation))
    with Image.open(path) as stored:
        expected = shown(ImageOps.exif_transpose(stored))
    assert np.array_equal(shown(decode_image(path)), expected)
    assert np.array_equal(shown(decode_image(path.read_bytes())), expected)
    assert size_and_channels(path) == (expected.shape[:2], 3)
    assert is_read_anew(path, is_mask=False) == (orientation != 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_are_turned_alike(tmp_path, orientation, dtype):
    mask = np.arange(24, dtype=dtype).reshape(6, 4)
    Image.fromarray(mask).save(tmp_path / "mask.png", exif=exif(orientation))
    turned = ImageOps.exif_transpose(
        Image.open(io.BytesIO(encoded(Image.fromarray(mask.astype(np.uint8)), exif=exif(orientation))))
    )
    assert np.array_equal(decode_mask(tmp_path / "mask.png"), np.asarray(turned))


def test_a_profile_is_applied_and_srgb_changes_nothing(tmp_path):
    """The profile here has red and blue swapped: what is stored as red is meant as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = (
        srgb.replace(b"sRGB", b"mine").replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")
    )
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert shown(decode_image(encoded(red, icc_profile=srgb)))[0, 0].tolist() == [255, 0, 0]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(swapped))
    if "srgb" in ImageCms.getProfileDescription(profile).lower():
        swapped = swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    assert shown(decode_image(encoded(red, icc_profile=swapped)))[0, 0].tolist() == pytest.approx([0, 0, 255], abs=3)
    assert is_read_anew(encoded(red, icc_profile=swapped), is_mask=False)
    assert not is_read_anew(encoded(red, icc_profile=srgb), is_mask=False)


def test_what_is_transparent_shows_white():
    pixels = np.array([[[9, 9, 9, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], dtype=np.uint8)
    assert shown(decode_image(encoded(Image.fromarray(pixels)))).tolist() == [[[255] * 3, [10, 20, 30], [127] * 3]]
    opaque = Image.fromarray(pixels).convert("RGB").convert("RGBA")
    assert not is_read_anew(encoded(opaque), is_mask=False)
    assert is_read_anew(encoded(Image.fromarray(pixels)), is_mask=False)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_palette_with_transparency_is_read_without_a_warning(transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encoded(image, transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shown(decode_image(data)).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


def test_of_16_bits_the_upper_8_are_read():
    deep = np.array([[0, 255, 256, 40_000, 65_535]], dtype=np.uint16)
    assert shown(decode_image(encoded(Image.fromarray(deep))))[0, :, 0].tolist() == [0, 0, 1, 156, 255]
    pgm = b"P5 2 1 65535\n" + np.array([[256, 65_535]], dtype=">u2").tobytes()
    assert shown(decode_image(pgm))[0, :, 0].tolist() == [1, 255]


def test_floating_point_images_are_refused():
    with pytest.raises(DataError, match="image: holds floating-point numbers, must hold 8 or 16 bits a channel"):
        decode_image(encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"))


def test_cmyk_is_read_as_pillow_converts_it():
    image = Image.fromarray(picture()).convert("CMYK")
    assert np.array_equal(shown(decode_image(encoded(image, "TIFF"))), shown(image))


def test_grey_and_colour_are_converted():
    image = decode_image(encoded(Image.new("RGB", (2, 2), (255, 0, 0))))
    assert to_array(image, 3, (2, 2))[:, 0, 0].tolist() == [255, 0, 0]
    assert to_array(image, 1, (2, 2)).tolist() == [[[76, 76], [76, 76]]]  # 0.299 of red, ITU-R 601


def test_resizing_is_height_by_width():
    ramp = Image.fromarray(np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None], 4, axis=0))
    array = to_array(ramp, 1, (2, 8))
    assert array.shape == (1, 2, 8)
    assert (np.diff(array[0, 0].astype(int)) > 0).all()


def test_a_palette_mask_holds_its_indices_and_its_colours(tmp_path):
    mask = Image.fromarray(np.array([[0, 2], [1, 2]], dtype=np.uint8))
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    mask.save(tmp_path / "mask.png")
    assert decode_mask(tmp_path / "mask.png").tolist() == [[0, 2], [1, 2]]
    assert decode_colours(tmp_path / "mask.png").tolist() == [[[9, 9, 9], [0, 200, 0]], [[200, 0, 0], [0, 200, 0]]]


def test_a_mask_must_not_be_transparent_or_animated(tmp_path):
    Image.fromarray(np.zeros((2, 2, 4), dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask.png: is partly transparent, must hold class indices"):
        decode_mask(tmp_path / "mask.png")
    frames = [Image.fromarray(np.full((2, 2), value, dtype=np.uint8)) for value in range(3)]
    frames[0].save(tmp_path / "mask.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"mask.tif: holds 3 frames, a mask must hold one"):
        decode_mask(tmp_path / "mask.tif")


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: cannot be read as an image \(.+\)"):
        decode_image(path)


def test_foreign_bytes_end_in_an_image_or_in_our_error():
    rng = np.random.default_rng(0)
    whole = [encoded(Image.fromarray(picture()), form) for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")]
    for number in range(300):
        data = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(0, 256)
        for decode in (decode_image, decode_mask):
            try:
                decode(bytes(data[: rng.integers(1, len(data) + 1)]))
            except DataError as error:
                assert len(str(error).splitlines()) == 1


def test_suffixes_are_those_of_pillow_without_what_starts_programs():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif"} <= image_suffixes()
    assert not {".eps", ".ps", ".h5", ".mpg"} & image_suffixes()


def sideways(path: Path, mask_path: Path | None = None) -> None:
    """Write an image, bright on the left, turned by its orientation; and its mask, which is upright."""
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, :4] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    bright = Image.fromarray(np.repeat(mask[..., None] * 255, 3, axis=2))
    bright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif(6))
    if mask_path is not None:
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(mask_path)


def test_every_split_is_turned(tmp_path):
    for split in ("train", "test"):
        for index in range(4):
            sideways(tmp_path / split / "images" / f"{index}.png", tmp_path / split / "masks" / f"{index}.png")
    data = ImageMaskFolder(tmp_path, class_names=["a", "b"], image_size=8)
    for split in Split:
        examples = data.load(split)
        assert ((examples.images[:, 0] > 127) == (examples.targets == 1)).all()


def test_a_cache_key_changes_where_the_reading_did(tmp_path):
    for name in ("cat", "dog"):
        for index in range(3):
            (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture()).save(tmp_path / "train" / name / f"{index}.png", exif=exif(1))
    plain = ImageFolder(tmp_path, image_size=4).fingerprint()
    sideways(tmp_path / "train" / "cat" / "0.png")
    turned = ImageFolder(tmp_path, image_size=4).fingerprint()
    assert turned != plain


def test_pillow_is_not_asked_to_run_ghostscript(monkeypatch):
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program was started"))
    with pytest.raises(DataError, match="not an image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
