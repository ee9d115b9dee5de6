"""Modified Bessel functions of the first kind."""

from __future__ import annotations

import numpy as np
import torch

from tests.op_cases import Case
from tests.op_cases.elementwise import edges
from tests.op_cases.gamma import far
from tests.op_cases.special import wide

CASES = [
    row for name, function, plain in (("i0e", torch.special.i0e, torch.special.i0), ("i1e", torch.special.i1e, torch.special.i1))
    for row in (
        Case(name, function, wide("batch", 40)),
        Case(name, function, wide("batch", 40, dtype=np.float64), name="float64"),
        Case(name, function, far("batch", 40), name="every size"),
        Case(name, lambda x, function=function: function(8 * x), wide("batch", 40, dtype=np.float64), name="between the series"),
        Case(name, function, edges("batch", 16), name="edges"),
        Case(name, plain, wide("batch", 40), name="unscaled"),
        Case(name, lambda x, plain=plain: plain(10 * x), wide("batch", 40, dtype=np.float64), name="unscaled, large"),
    )
]
