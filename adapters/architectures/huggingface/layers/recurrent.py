"""Language models that read word by word, and keep a state instead of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapters.architectures.huggingface.layers.decoders import TASKS, UNBOUNDED
from adapters.architectures.huggingface.layers.decoders import Sequence as Words
from adapters.architectures.huggingface.layers.encoders import taken
from adapters.architectures.huggingface.net import Net
from converter.builder import GraphBuilder, Value
from converter.dims import Dim
from converter.ir import DType

READ = {task: TASKS[task] for task in ("feature-extraction", "text-generation")}
# The states, those of the next word, and what is given for this one.
Step = Callable[[GraphBuilder, Sequence[Value], Sequence[Value], Sequence[Value]], tuple[Sequence[Value], Value]]


def words_of(net: Net) -> Words:
    """Declares the inputs: the words, and their mask where it is taken, int64 [batch, time], of any length."""
    net.dim("batch", None)
    net.dim("time", None)
    for name in ("input_ids", "attention_mask"):
        if net.takes(name):
            net.b.input(name, DType.INT64, ["batch", "time"])
    return Words(net, Value("input_ids", net.b.specs["input_ids"]), 0, None, UNBOUNDED)


def state_of(net: Net, layer: int, name: str, shape: tuple[Dim, ...], dtype: DType, start: float = 0.0) -> Value:
    """What a layer has kept, an input of a model with a cache; else what it has at the start."""
    if net.cache:
        return net.b.input(f"past_key_values.{layer}.{name}", dtype, shape)
    return net.op("full", shape=shape, fill_value=start, dtype=dtype)


def keep(words: Words, layer: int, name: str, value: Value) -> None:
    """What a layer keeps for the words after, an output of a model with a cache."""
    if words.net.cache:
        words.present[f"present.{layer}.{name}"] = value


def scanned(net: Net, states: Sequence[Value], sequences: Sequence[Value], rest: Sequence[Value], step: Step) -> tuple[Value, ...]:
    """The last states, and what `step` gives for each word, [batch, time, …]: its sequences are [batch, time, …] too."""
    inner = GraphBuilder(net.b.unique("step"))
    firsts = [net.op("permute_dims", item, axes=(1, 0, *range(2, item.rank))) for item in sequences]
    shapes = [item.shape for item in states] + [item.shape[1:] for item in firsts] + [item.shape for item in rest]
    operands = (*states, *firsts, *rest)
    given = [inner.input(f"input_{place}", operand.dtype, shape)
             for place, (operand, shape) in enumerate(zip(operands, shapes, strict=True))]
    count = len(states)
    found, out = step(inner, given[:count], given[count:count + len(firsts)], given[count + len(firsts):])
    for place, value in enumerate((*found, out)):
        inner.output(f"output_{place}", value)
    *last, all_of_them = net.b.add("scan", operands, {"states": count, "sequences": len(firsts), "body": inner.graph()})
    return (*last, net.op("permute_dims", all_of_them, axes=(1, 0, *range(2, all_of_them.rank))))


def masked(net: Net, words: Words, x: Value) -> Value:
    """Zero at words that the mask hides, [batch, time, width]."""
    mask = taken(net, "attention_mask")
    if mask is None:
        return x
    if mask.shape[1] != words.time:
        mask = net.op("slice", mask, axes=(1,), starts=(words.past,), stops=(None,))
    return net.op("multiply", x, net.op("expand_dims", net.cast(mask), axis=(2,)))


def convolved(net: Net, words: Words, x: Value, kernel: int, bias: bool, layer: int) -> Value:
    """Each channel's last `kernel` words weighted and summed, [batch, time, channels]; the cache has those before the first."""
    batch, time, channels = x.shape
    x = net.op("permute_dims", x, axes=(0, 2, 1))
    if net.cache:
        past = state_of(net, layer, "conv", (batch, channels, kernel - 1), net.dtype)
        x = net.op("concat", past, x, axis=2)
        keep(words, layer, "conv", net.op("slice", x, axes=(2,), starts=(time,), stops=(None,)))
    weight = net.tensor("convolution", (channels, 1, kernel), layer=layer)
    offset = net.tensor("convolution", (channels,), "bias", layer=layer) if bias else None
    x = net.op("convolution", x, weight, offset, groups=channels, padding=[] if net.cache else [kernel - 1, 0])
    return net.op("permute_dims", x, axes=(0, 2, 1))
