"""Two threads that convert at once: what a trace exchanges of torch belongs to the process."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

import converter
from converter.format import model_digest
from converter.ir import Model


class Recurrent(nn.Module):
    """An LSTM, whose trace is unrolled where torch's own functions stand; it calls `before` while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor:
            self.before()
        y: Tensor = self.lstm(x)[0]
        return y

    @staticmethod
    def before() -> None:
        return None


class First(Recurrent):
    @staticmethod
    def before() -> None:
        if not FIRST.is_set():
            FIRST.set()
            SECOND.wait(2)


class Second(Recurrent):
    @staticmethod
    def before() -> None:
        SECOND.set()
        DONE.wait(20)


FIRST, SECOND, DONE = threading.Event(), threading.Event(), threading.Event()


def test_two_threads_convert_what_one_does() -> None:
    """The second begins while the first traces, and comes to its layer when the first has put everything back."""
    x = torch.zeros(2, 5, 4)
    alone = converter.from_torch(Recurrent(), (x,), name="R", examples=False)
    found: dict[str, Model] = {}

    def first() -> None:
        found["first"] = converter.from_torch(First(), (x,), name="R", examples=False)
        DONE.set()

    def second() -> None:
        FIRST.wait(20)
        found["second"] = converter.from_torch(Second(), (x,), name="R", examples=False)

    before = (torch._VF.lstm, nn.functional.ctc_loss, torch.SymBool.__bool__)  # type: ignore[attr-defined]
    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [node.op for node in alone.graph.nodes] == ["lstm"]
    assert {name: model_digest(model) for name, model in found.items()} == dict.fromkeys(("first", "second"), model_digest(alone))
    assert (torch._VF.lstm, nn.functional.ctc_loss, torch.SymBool.__bool__) == before  # type: ignore[attr-defined]
