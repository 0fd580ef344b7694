"""Random networks with attention: by torch's function, by its modules, with and without the scores in memory."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel


class AttentionBlock(nn.Module):
    """A block of a vision transformer whose attention is torch's function."""

    def __init__(self, width: int, n_heads: int, *, is_causal: bool, is_plain: bool) -> None:
        super().__init__()
        self.n_heads, self.is_causal, self.is_plain = n_heads, is_causal, is_plain
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, L, E)` of the same shape."""
        n_samples, n_tokens, width = x.shape
        heads = self.qkv(self.norms[0](x)).view(n_samples, n_tokens, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(SDPBackend.MATH) if self.is_plain else nullcontext():
            query, key, value = heads.unbind()
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n_samples, n_tokens, width))
        mlp: torch.Tensor = self.mlp(self.norms[1](x))
        return x + mlp


class VisionTransformer(nn.Module):
    """Patches, blocks and the mean of all tokens."""

    def __init__(self, patch: int, width: int, blocks: nn.Module) -> None:
        super().__init__()
        self.patches, self.blocks, self.head = nn.Conv2d(3, width, patch, patch), blocks, nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits `(B, 10)`."""
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.head(self.blocks(tokens).mean(1))
        return logits


def attention_networks(n_models: int, rng: np.random.Generator) -> Iterator[tuple[str, nn.Module]]:
    """Yield networks for images of 64x64 with the name of their kind, in eval mode; each kind in turn."""
    kinds = ("function", "causal", "plain products", "encoder module")
    for index in range(n_models):
        kind = kinds[index % len(kinds)]
        patch, n_heads, depth = (int(rng.choice(options)) for options in ((2, 4, 8), (2, 3, 4), (1, 2, 3)))
        width = n_heads * int(rng.choice((8, 16, 32)))
        if kind == "encoder module":
            layer = nn.TransformerEncoderLayer(width, n_heads, 4 * width, batch_first=True, norm_first=bool(depth % 2))
            blocks: nn.Module = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        else:
            options = {"is_causal": kind == "causal", "is_plain": kind == "plain products"}
            blocks = nn.Sequential(*(AttentionBlock(width, n_heads, **options) for _ in range(depth)))
        yield kind, VisionTransformer(patch, width, blocks).eval()
