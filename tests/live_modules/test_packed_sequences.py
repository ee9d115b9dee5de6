"""Packed sequences: packing, the layers between, unpacking, at sizes and lengths that were not traced, in every runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.rnn as rnn
from torch import nn

import converter
from adapters.torch.live import convert
from adapters.torch.tracing.trace import trace
from converter import reference
from converter.equivalence.roles import roles
from tests.support_modules import RUNTIMES, assert_same

Call = tuple[torch.Tensor, ...]


class With(nn.Module):
    """A function of layers and inputs."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, *x: Any) -> Any:
        return self.function(*self.layers, *x)


def call(time: int, lengths: Sequence[int], dtype: torch.dtype = torch.float32) -> Call:
    torch.manual_seed(time)
    return torch.randn(len(lengths), time, 5, dtype=dtype), torch.tensor(lengths)


def calls(dtype: torch.dtype = torch.float32) -> list[Call]:
    return [call(6, [4, 6, 2], dtype), call(9, [3, 1], dtype), call(7, [7], dtype), call(5, [2, 4, 1, 4], dtype)]


SORTED = [call(6, [6, 4, 2]), call(9, [3, 1]), call(7, [7]), call(5, [5, 5, 5, 1])]


def pack(x: torch.Tensor, lengths: Any, **options: Any) -> rnn.PackedSequence:
    return rnn.pack_padded_sequence(x, lengths, **{"batch_first": True, "enforce_sorted": False, **options})


def unpack(packed: rnn.PackedSequence, **options: Any) -> torch.Tensor:
    return rnn.pad_packed_sequence(packed, **{"batch_first": True, **options})[0]


def with_data(packed: rnn.PackedSequence, data: torch.Tensor) -> rnn.PackedSequence:
    return rnn.PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def around(layer: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    output, states = layer(pack(x, lengths))
    return rnn.pad_packed_sequence(output, batch_first=True), states


def with_states(layer: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    given = x.new_ones(2, x.shape[0], 7), x.new_zeros(2, x.shape[0], 7) + x.mean()
    output, states = layer(pack(x, lengths), given)
    return unpack(output, total_length=x.shape[1]), states


def time_first(layer: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    output, states = layer(pack(x.transpose(0, 1), lengths, batch_first=False))
    return rnn.pad_packed_sequence(output)[0], states


def normalized(norm: nn.Module, layer: nn.Module, head: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    packed = pack(x, lengths)
    output = layer(with_data(packed, norm(packed.data)))[0]
    return unpack(with_data(output, torch.relu(head(output.data))), padding_value=3.0)


torch.manual_seed(0)

NETS: dict[str, tuple[nn.Module, list[Call]]] = {
    "lstm": (With(around, nn.LSTM(5, 7, 2, bidirectional=True, dropout=0.3, batch_first=True)), calls()),
    "gru": (With(around, nn.GRU(5, 7, 2, bidirectional=True)), calls()),
    "rnn, relu": (With(around, nn.RNN(5, 4, nonlinearity="relu", bias=False)), calls()),
    "projections": (With(around, nn.LSTM(5, 7, 2, proj_size=3, bidirectional=True)), calls()),
    "float64": (With(around, nn.GRU(5, 7, bidirectional=True).double()), calls(torch.float64)),
    "initial states": (With(with_states, nn.LSTM(5, 7, bidirectional=True)), calls()),
    "time first": (With(time_first, nn.LSTM(5, 7)), calls()),
    "sorted": (With(lambda layer, x, n: unpack(layer(pack(x, n, enforce_sorted=True))[0]), nn.GRU(5, 7)), SORTED),
    "a fixed total length": (With(lambda layer, x, n: unpack(layer(pack(x, n))[0], total_length=20), nn.GRU(5, 7)), calls()),
    "a padding value": (With(lambda layer, x, n: unpack(layer(pack(x, n))[0], padding_value=-float("inf")).amax(1), nn.GRU(5, 7)), calls()),
    "operators on data": (With(normalized, nn.BatchNorm1d(5), nn.GRU(5, 7), nn.Linear(7, 3)), calls()),
    "two layers": (With(lambda a, b, x, n: unpack(b(a(pack(x, n))[0])[0]), nn.LSTM(5, 6, bidirectional=True), nn.GRU(12, 4)), calls()),
    "no layer": (With(lambda x, n: unpack(pack((x * 9).long(), n), padding_value=-1)), calls()),
    "the packed parts": (With(lambda x, n: tuple(pack(x, n))), calls()),
    "mean of the data": (With(lambda x, n: pack(x, n).data.mean(0)), calls()),
    "lengths from a mask": (With(lambda layer, x, n: unpack(layer(pack(x, (torch.arange(x.shape[1]) < n[:, None]).sum(1)))[0]),
                                 nn.GRU(5, 7)), calls()),
    "rows of a batch": (With(lambda x, n: torch.cat([row.mean(0) for row in rnn.unpad_sequence(x, n, batch_first=True)])),
                        [call(6, [4, 6, 2]), call(9, [3, 1, 9])]),
    "rows padded": (With(lambda a, b: rnn.pad_sequence([a, b], batch_first=True, padding_value=2.0, padding_side="left")),
                    [(torch.randn(3, 5), torch.randn(6, 5)), (torch.randn(7, 5), torch.randn(2, 5)),
                     (torch.randn(1, 5), torch.randn(1, 5))]),
}


@pytest.mark.parametrize("name", NETS)
def test_the_same_as_torch(name: str) -> None:
    net, at = NETS[name]
    assert_same(net, *at)


def test_lengths_of_a_list() -> None:
    net = With(lambda layer, x: unpack(layer(pack(x, [4, 6, 2]))[0]), nn.GRU(5, 7))
    assert_same(net, (torch.randn(3, 6, 5),), (torch.randn(3, 8, 5),))


def test_layers_take_lengths_without_packing() -> None:
    net, at = NETS["two layers"]
    graph = converter.from_torch(net, at[0]).graph
    assert [str(port.spec) for port in graph.inputs] == ["float32[batch, x_0_1, 5]", "int64[batch]"]
    assert [node.op for node in graph.nodes if node.op in ("lstm", "gru", "cumulative_sum")] == ["lstm", "gru"]


@pytest.mark.parametrize("name", ["lstm", "sorted", "no layer"])
def test_verify_draws_lengths_that_the_module_takes(name: str) -> None:
    net, at = NETS[name]
    made = convert(net, at[0])
    assert not [note for note in made.model.metadata.get("notes", ()) if "fails" in note]
    assert converter.verify(made.model, source=made.source, runtimes=["numpy", "onnxruntime"], cases=4, locate=False)


def test_roles_of_lengths() -> None:
    models = [converter.from_torch(NETS[name][0], NETS[name][1][0]) for name in ("lstm", "sorted")]
    found = [roles(model.graph, model.parameters)[model.graph.inputs[1].name] for model in models]
    assert [role.falling for role in found] == [False, True]
    assert found[0].integer_range(lambda size: 9) == (1, 9)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("lengths", [[7, 2], [0, 2]])
def test_lengths_outside_the_rows_are_refused(runtime: str, lengths: list[int]) -> None:
    net, at = NETS["gru"]
    model = converter.from_torch(net, at[0])
    x, n = call(6, lengths)
    inputs = dict(zip([port.name for port in model.graph.inputs], (x.numpy(), n.numpy()), strict=True))
    with pytest.raises(converter.ConverterError):
        converter.session(model, runtime=runtime).run(inputs)


def test_everything_is_put_back() -> None:
    def patched() -> list[Any]:
        return [rnn.pad_packed_sequence.__code__, rnn.pack_padded_sequence.__code__, nn.LSTM.forward, torch._VF._pack_padded_sequence,
                torch._C._nn.pad_sequence]

    before = patched()
    net, at = NETS["sorted"]
    trace(net, list(at[0]))
    assert patched() == before
    with torch.no_grad():
        assert net(*at[1]).shape == (2, 3, 7)


@pytest.mark.filterwarnings("ignore:requires batch ==")  # a rebuilt module has no door: its runtime checks the sizes
def test_a_rebuilt_module_with_lengths_is_traced_again() -> None:
    net, at = NETS["lstm"]
    net.eval()
    model = converter.from_torch(net, at[0])
    rebuilt = converter.session(model, runtime="torch").module
    again = converter.from_torch(rebuilt, at[0])
    inputs = dict(zip([port.name for port in again.graph.inputs], (item.numpy() for item in at[3]), strict=True))
    with torch.no_grad():
        (wanted, _), (h, _) = net(*at[3])
    found = list(reference.run(again, inputs).values())
    np.testing.assert_allclose(found[0], wanted.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[2], h.numpy(), atol=1e-5)
