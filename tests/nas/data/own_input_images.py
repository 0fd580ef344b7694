"""Images and masks of odd kinds."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests.nas.data.own_input import (
    INPUTS,
    MASKS,
    SIDE,
    Input,
    is_bright_where_masked,
    save,
    sizes,
    with_image,
    with_mask,
    write_png,
)

# --- images


@with_image()
def sideways(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=100)


@with_image()
def mirrored_png(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 2
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, exif=exif)


@with_image()
def broken_exif(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".jpg"), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=100)


@with_image()
def cmyk(image: Image.Image, path: Path) -> None:
    image.convert("CMYK").save(path.with_suffix(".jpg"), quality=100)


@with_image()
def palette_with_transparency(image: Image.Image, path: Path) -> None:
    mask = (np.asarray(image)[..., 0] > 0).astype(np.uint8)
    drawn = Image.fromarray(mask)
    drawn.putpalette([0, 0, 0, 0, 0, 0])  # bright only where it is transparent: what viewers show is white
    drawn.save(path, transparency=bytes([255, 0]))


@with_image()
def transparent(image: Image.Image, path: Path) -> None:
    bright = np.asarray(image)[..., 0]
    pixels = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    pixels[..., 3] = 255 - bright  # black, and nothing where it is to be bright
    Image.fromarray(pixels).save(path)


@with_image()
def grey_of_16_bits(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257).save(path)


@with_image(
    told=("Images that have 16 bits and use the lowest 12 at most, read nearly black as viewers show them: 4 (first",)
)
def dark_of_16_bits(image: Image.Image, path: Path) -> None:
    bright = np.asarray(image)[..., 0] > 0
    Image.fromarray(np.where(bright, 4095, 0).astype(np.uint16)).save(path)


INPUTS["dark_of_16_bits"] = Input(
    INPUTS["dark_of_16_bits"].make, "image_mask_folder", MASKS, sizes(3, 1), INPUTS["dark_of_16_bits"].told
)


@with_image()
def rgb_of_16_bits(image: Image.Image, path: Path) -> None:
    rows = np.asarray(image).astype(">u2") * 257
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    write_png(path, data, depth=16, colour_type=2)


@with_image(told=("Images that hold several frames, of which the first is read: 4 (first",))
def animated(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".gif"), save_all=True, append_images=[Image.new("RGB", image.size)] * 2)


@with_image()
def tiff(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".TIF"))


@with_image()
def webp(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".webp"), lossless=True)


@with_image()
def jpeg_called_png(image: Image.Image, path: Path) -> None:
    image.save(path, "JPEG", quality=100)


@with_image()
def srgb_profile(image: Image.Image, path: Path) -> None:
    image.save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


@with_image()
def broken_profile(image: Image.Image, path: Path) -> None:
    image.save(path, icc_profile=b"no profile")


# --- masks


@with_mask(is_bright_where_masked)
def mask_of_a_palette(mask: np.ndarray, path: Path) -> None:
    drawn = Image.fromarray(mask)
    drawn.putpalette([0, 0, 0, 128, 0, 0])
    drawn.save(path)


@with_mask(is_bright_where_masked)
def mask_in_three_channels(mask: np.ndarray, path: Path) -> None:
    save(path, np.repeat(mask[..., None], 3, axis=2))


@with_mask(is_bright_where_masked)
def mask_of_one_bit(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask * 255).convert("1").save(path)


@with_mask(is_bright_where_masked)
def mask_of_four_bits(mask: np.ndarray, path: Path) -> None:
    rows = [bytes(int(row[i]) << 4 | int(row[i + 1]) for i in range(0, SIDE, 2)) for row in mask]
    write_png(path, b"".join(b"\0" + row for row in rows), depth=4, colour_type=0)


@with_mask(is_bright_where_masked)
def mask_of_16_bits(mask: np.ndarray, path: Path) -> None:
    save(path, mask.astype(np.uint16))


@with_mask(is_bright_where_masked, mask_values=(0, 1000))
def mask_of_large_values(mask: np.ndarray, path: Path) -> None:
    save(path, mask.astype(np.uint16) * 1000)


@with_mask(is_bright_where_masked, mask_values=(0, 255))
def mask_of_0_and_255(mask: np.ndarray, path: Path) -> None:
    save(path, mask * 255)


@with_mask(None, "4 masks hold the value 255, must hold 0 .. 1", "`data: {mask_values: [0, 255]}`")
def mask_of_0_and_255_unmapped(mask: np.ndarray, path: Path) -> None:
    save(path, mask * 255)


@with_mask(is_bright_where_masked, mask_colors=((0, 0, 0), (255, 0, 0)))
def mask_of_colours(mask: np.ndarray, path: Path) -> None:
    save(path, mask[..., None] * np.array([255, 0, 0], dtype=np.uint8))


@with_mask(None, "4 masks hold colours", "mask_colors: [[R, G, B], ...]")
def mask_of_colours_unmapped(mask: np.ndarray, path: Path) -> None:
    save(path, mask[..., None] * np.array([255, 0, 0], dtype=np.uint8))


@with_mask(None, "4 masks hold the value 11, must hold 0 .. 1", "`data: {ignore_index: 11}`")
def mask_with_unlabelled_pixels(mask: np.ndarray, path: Path) -> None:
    save(path, np.where(mask == 0, 11, mask).astype(np.uint8))


@with_mask(None, "4 masks are in a format whose compression changes class indices", "save masks as PNG")
def mask_as_jpeg(mask: np.ndarray, path: Path) -> None:
    save(path.with_suffix(".jpg"), mask)


@with_mask(None, "4 masks hold many values that are no class", "resized by the nearest pixel")
def mask_that_was_smoothed(mask: np.ndarray, path: Path) -> None:
    save(path, np.tile(np.arange(0, 80, 10, dtype=np.uint8), (SIDE, 1)))


@with_mask(None, "masks are of another size than their images")
def mask_of_another_size(mask: np.ndarray, path: Path) -> None:
    save(path, mask[:4])


@with_mask(None, "files cannot be read as images")
def mask_that_is_cut_off(mask: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:50])
