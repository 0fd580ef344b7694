"""Networks of other libraries with random weights: the 200 smallest of timm, and 20 of transformers."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.foreign_models.torchvision_stand_in import supply_torchvision

_TIMM_NETWORKS = Path(__file__).with_name("timm_networks.txt")  # of timm 1.0.31, the smallest first

_BLOCKS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_TOKENS = {**_BLOCKS, "vocab_size": 1000}
_SHARED_HEADS = {**_TOKENS, "num_key_value_heads": 2}
_STAGES = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]}
_WINDOWS = {"image_size": 64, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}

# By model class of transformers, options of its configuration; what is not said is the class's default.
_IMAGE_MODELS: dict[str, dict[str, Any]] = {
    "ViTModel": {**_BLOCKS, "image_size": 64},
    "DeiTModel": {**_BLOCKS, "image_size": 64},
    "BeitModel": {**_BLOCKS, "image_size": 64},
    "Dinov2Model": {**_BLOCKS, "image_size": 64},
    "SwinModel": _WINDOWS,
    "Swinv2Model": _WINDOWS,
    "ConvNextV2Model": _STAGES,
    "ResNetModel": {**_STAGES, "layer_type": "basic"},
    "MobileViTModel": {"image_size": 64},
    "SegformerModel": {},
}
_TEXT_MODELS: dict[str, dict[str, Any]] = {
    "BertModel": _TOKENS,
    "DistilBertModel": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 1000},
    "AlbertModel": _TOKENS,
    "ElectraModel": _TOKENS,
    "GPT2Model": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
    "BloomModel": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
    "LlamaModel": _SHARED_HEADS,
    "Qwen2Model": _SHARED_HEADS,
    "MixtralModel": {**_SHARED_HEADS, "num_local_experts": 2},
    "MambaModel": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1000},
}


@dataclass(frozen=True)
class ForeignNetwork:
    """A network of another library.

    Attributes:
        name: With its library.
        build: Makes it.
        input_shape: Without the batch; `None` for the one that the network itself names.
        dtype: Of its input.
    """

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...] | None
    dtype: torch.dtype = torch.float32


def foreign_networks(n_timm: int, n_transformers: int) -> Iterator[ForeignNetwork]:
    """Yield the first so many networks of each library."""
    names = _TIMM_NETWORKS.read_text(encoding="utf-8").split()
    # transformers first: it looks for torchvision too, and does without where there is none.
    yield from _of_transformers(n_transformers)
    yield from _of_timm(names[:n_timm])


def _of_timm(names: list[str]) -> Iterator[ForeignNetwork]:
    supply_torchvision()
    import timm  # noqa: PLC0415 - needs the stand-in

    def builder(name: str) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(name, pretrained=False).eval()

    for name in names:
        yield ForeignNetwork(f"timm/{name}", builder(name), None)


def _of_transformers(n_networks: int) -> Iterator[ForeignNetwork]:
    import transformers  # noqa: PLC0415 - no requirement of this project

    transformers.logging.set_verbosity_error()

    def builder(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            configuration = getattr(transformers, name.removesuffix("Model") + "Config")(**options)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model: nn.Module = getattr(transformers, name)(configuration).eval()
                return model

        return build

    rows = [(name, options, (3, 64, 64), torch.float32) for name, options in _IMAGE_MODELS.items()]
    texts = [(name, options, (24,), torch.int64) for name, options in _TEXT_MODELS.items()]
    for name, options, shape, dtype in [*rows, *texts][:n_networks]:
        yield ForeignNetwork(f"transformers/{name}", builder(name, options), shape, dtype)
