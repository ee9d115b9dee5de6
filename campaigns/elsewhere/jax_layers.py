"""Functions of JAX and modules of Flax through jax2onnx: FOLDER/jax2onnx/NAME.onnx. Needs jax, flax and jax2onnx.

    python campaigns/elsewhere/jax_layers.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax import nnx
from jax2onnx import to_onnx

W = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
B, WIDE = ["B", 4], ["B", 9, 16]


class Block(nnx.Module):
    """A transformer's block."""

    def __init__(self) -> None:
        draw = nnx.Rngs(0)
        self.norm, self.second = nnx.LayerNorm(16, rngs=draw), nnx.RMSNorm(16, rngs=draw)
        self.attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=draw)
        self.up, self.down = nnx.Linear(16, 32, rngs=draw), nnx.Linear(32, 16, rngs=draw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm(x))
        return x + self.down(nnx.gelu(self.up(self.second(x))))


class Net(nnx.Module):
    """Convolutions, batch norm, pooling."""

    def __init__(self) -> None:
        draw = nnx.Rngs(0)
        self.first, self.second = nnx.Conv(3, 8, (3, 3), rngs=draw), nnx.Conv(8, 8, (3, 3), strides=2, padding="SAME", rngs=draw)
        self.norm, self.last = nnx.BatchNorm(8, use_running_average=True, rngs=draw), nnx.Linear(8, 5, rngs=draw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.norm(self.first(x))), (2, 2), (2, 2))
        return self.last(nnx.silu(self.second(x)).mean((1, 2)))


def scanned(x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, row: (0.5 * carry + row, carry), jnp.zeros(4), x)[0]


def looped(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 3, lambda i, value: jnp.sin(value) + i, x)


FUNCTIONS: dict[str, tuple[Callable[[], Callable[..., Any]], list[Any]]] = {
    "linear": (lambda: lambda x: jnp.tanh(x @ W), [B]), "softmax": (lambda: lambda x: jax.nn.softmax(x, -1), [B]),
    "gelu": (lambda: lambda x: jax.nn.gelu(x, approximate=False), [B]), "gelu-tanh": (lambda: jax.nn.gelu, [B]),
    "silu": (lambda: jax.nn.silu, [B]), "logsumexp": (lambda: lambda x: jax.nn.logsumexp(x, axis=1), [B]),
    "where": (lambda: lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1), [B]), "sort": (lambda: lambda x: jnp.sort(x, axis=-1), [B]),
    "argmax": (lambda: lambda x: jnp.argmax(x, axis=-1), [B]), "top-k": (lambda: lambda x: jax.lax.top_k(x, 2)[0], [B]),
    "cumsum": (lambda: lambda x: jnp.cumsum(x, axis=1), [B]), "concatenate": (lambda: lambda x: jnp.concatenate([x, x[:, ::-1]], 1), [B]),
    "pad": (lambda: lambda x: jnp.pad(x, ((0, 0), (1, 2))), [B]), "roll": (lambda: lambda x: jnp.roll(x, 1, axis=1), [B]),
    "einsum": (lambda: lambda x: jnp.einsum("btd,bsd->bts", x, x), [WIDE]), "take": (lambda: lambda x: jnp.take(x, jnp.array([2, 0]),
    axis=1), [B]),
    "variance": (lambda: lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5), [WIDE]),
    "clip-sign": (lambda: lambda x: jnp.clip(x, -1, 1) * jnp.sign(x), [B]), "scan": (lambda: scanned, [["T", 4]]),
    "fori": (lambda: looped, [B]),
    "cond": (lambda: lambda x: jax.lax.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, x), [B]),
    "while": (lambda: lambda x: jax.lax.while_loop(lambda y: y.max() < 10, lambda y: y * 1.5 + 1, x), [[3, 4]]),
    "reduce-window": (lambda: lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2), (1, 2), "VALID"), [B]),
    "power-mod": (lambda: lambda x: jnp.power(jnp.abs(x), 1.5) + jnp.mod(x, 0.7) + jnp.floor(x), [B]),
    "scatter": (lambda: lambda x: x.at[:, 1].add(2.0), [B]), "triangle": (lambda: lambda x: jnp.tril(x @ x.swapaxes(1, 2)), [WIDE]),
    "nnx-linear": (lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)), [B]), "nnx-block": (Block, [WIDE]), "nnx-net": (Net, [["B", 12, 12, 3]]),
    "nnx-group-norm": (lambda: nnx.GroupNorm(16, num_groups=4, rngs=nnx.Rngs(0)), [WIDE]),
    "nnx-conv-transpose": (lambda: nnx.ConvTranspose(3, 4, (2, 2), strides=2, rngs=nnx.Rngs(0)), [["B", 6, 6, 3]]),
}


def main(folder: Path) -> None:
    folder = folder / "jax2onnx"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, shapes) in FUNCTIONS.items():
        try:
            model = to_onnx(make(), inputs=[tuple(shape) for shape in shapes], model_name=name)
            onnx.save(model, folder / f"{name}.onnx")
        except Exception as error:  # a tool's own
            print(f"jax2onnx/{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
