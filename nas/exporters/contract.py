"""What goes into an exported network and what comes out, in words and as data."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from nas.exporters.product import SIZE_STEP, Product, class_list

_CHANNELS = {1: "grey", 3: "red, green, blue"}
RESIZING = "bilinear, over the covered area where the image shrinks (Pillow's Image.Resampling.BILINEAR)"


@dataclass(frozen=True)
class Contract:
    """The contract of an exported network.

    Attributes:
        input_name: Of the image.
        layout: Of the image's dimensions.
        dtype: Of its numbers.
        value_range: Of its numbers.
        channels: Their order.
        image_size: Height and width in pixels: those of the training.
        any_size: Whether other sizes are taken too, multiples of 32.
        resizing: How images of another size were resized for the training.
        output_names: Of what comes out.
        output: What it means.
        class_names: In the order of the output's classes.
    """

    input_name: str
    layout: str
    dtype: str
    value_range: str
    channels: str
    image_size: tuple[int, int]
    any_size: bool
    resizing: str
    output_names: tuple[str, ...]
    output: str
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, product: Product, *, any_size: bool = False) -> Self:
        """Return the contract of a network that takes images in 0 .. 1 and gives logits."""
        n_channels = product.signature.in_channels
        place = "each pixel" if product.is_dense else "the image"
        dimensions = "(B, K, H, W)" if product.is_dense else "(B, K)"
        return cls(
            input_name="image",
            layout="(B, C, H, W)",
            dtype="float32",
            value_range="0 .. 1: pixels divided by 255; the normalisation is inside",
            channels=_CHANNELS.get(n_channels, f"{n_channels} channels"),
            image_size=product.signature.image_size,
            any_size=any_size,
            resizing=RESIZING,
            output_names=("logits",),
            output=f"logits {dimensions}: the class of {place} is the one with the largest",
            class_names=product.class_names,
        )

    @classmethod
    def with_processing(cls, product: Product) -> Self:
        """Return the contract of a network that takes images as they are decoded and gives labels."""
        plain = asdict(cls.of(product))
        meaning = (
            "class_map (B, H, W) uint8: the class of each pixel, of the image's own size; probability (B, H, W): of it"
            if product.is_dense
            else "label (B,) int64: the class; probability (B,): of it"
        )
        own = {
            "layout": "(B, H, W, C)",
            "dtype": "uint8",
            "value_range": "0 .. 255: pixels as they are decoded; resizing and normalisation are inside",
            "any_size": True,
            "output_names": processed_names(product.is_dense),
            "output": meaning,
        }
        return cls(**{**plain, **own})

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def lines(self) -> Iterator[str]:
        """Yield it for people, a line each."""
        height, width = self.image_size
        sizes = f"{height} x {width}"
        if self.any_size:
            multiples = "" if self.dtype == "uint8" else f" that are multiples of {SIZE_STEP}"
            sizes = f"{sizes}, or other sizes{multiples}"
        yield f"  input    {self.input_name} {self.layout} {self.dtype}, {self.value_range}"
        yield f"  channels {self.channels}"
        yield f"  size     {sizes} (height x width)"
        yield f"  resizing {self.resizing}"
        yield f"  output   {self.output}"
        yield f"  classes  {class_list(self.class_names)}"


def processed_names(is_dense: bool) -> tuple[str, ...]:
    """Return the names of what a network with processing gives."""
    return ("class_map" if is_dense else "label", "probability")
