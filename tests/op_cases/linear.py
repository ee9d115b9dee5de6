"""Matrix products, affine maps, and distances."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.op_cases import Case, boolean, f32, f64, i32, i64, positive


def einsum(equation: str) -> Any:
    return lambda *operands: torch.einsum(equation, *operands)


class Tied(nn.Module):
    """One matrix as embedding and as output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(x, self.weight), self.weight.t(), self.weight[0])


torch.manual_seed(0)
CASES = [
    Case("linear", F.linear, f32("batch", 4), f32(3, 4), f32(3), name="matrix"),
    Case("linear", nn.Linear(4, 3), f32("batch", "time", 4), name="batches"),
    Case("linear", nn.Linear(4, 3, bias=False), f32("batch", "time", 4), name="no bias"),
    Case("linear", nn.Linear(4, 3).double(), f64("batch", "time", 4), name="float64"),
    Case("linear", F.linear, f32(4), f32(3, 4), f32(3), name="vector"),
    Case("linear", F.linear, i64("batch", 4), i64(3, 4), name="int64"),
    Case("linear", F.linear, f32("batch", "time", 4), f32(4), name="weight vector"),
    Case("linear", Tied(), f32("batch", "time", 4), name="tied"),
    Case("matmul", torch.mm, f32("batch", 4), f32(4, 3), name="mm"),
    Case("matmul", torch.bmm, f32("batch", "time", 4), f32("batch", 4, "length"), name="bmm"),
    Case("matmul", torch.mv, f32("batch", 4), f32(4), name="mv"),
    Case("matmul", torch.dot, f32("time"), f32("time"), name="dot"),
    Case("matmul", torch.vdot, f64("time"), f64("time"), name="vdot, float64"),
    Case("matmul", torch.matmul, f32("batch", 1, "time", 4), f32(3, 4, 2), name="broadcast"),
    Case("matmul", torch.matmul, f32(4), f32("batch", 4, 3), name="vector on the left"),
    Case("matmul", torch.matmul, f32("batch", 3, 4), f32(4), name="vector on the right"),
    Case("matmul", torch.matmul, i64("batch", 4), i64(4, 3), name="int64"),
    Case("matmul", torch.matmul, i32("batch", 4), i32(4, 3), name="int32"),
    Case("matmul", lambda x, y: x.short() @ y.short(), i64("batch", 4), i64(4, 3), name="int16"),
    Case("matmul", torch.inner, f32("time"), f32("time"), name="inner"),
    Case("matmul", lambda x, y, z: torch.linalg.multi_dot([x, y, z]), f32(2, 4), f32(4, 9), f32(9, 2), name="three matrices"),
    Case("matmul", lambda x, y, z: torch.linalg.multi_dot([x, y, z]), f32(8), f32(8, 9), f32(9), name="vectors at the ends"),
    Case("matmul", torch.addmm, f32(3), f32("batch", 4), f32(4, 3), name="addmm"),
    Case("matmul", lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2), f32("batch", 3), f32("batch", 4), f32(4, 3),
         name="addmm, factors"),
    Case("matmul", lambda b, x, y: torch.addmm(b, x, y, beta=0, alpha=2), f32(3), f32("batch", 4), f32(4, 3), name="addmm, beta 0"),
    Case("matmul", lambda b, x, y: torch.baddbmm(b, x, y, beta=2, alpha=3), i64("batch", 2, 3), i64("batch", 2, 4), i64("batch", 4, 3),
         name="baddbmm, int64"),
    Case("matmul", torch.addmv, f32("batch"), f32("batch", 4), f32(4), name="addmv"),
    Case("einsum", torch.addbmm, f32(2, 3), f32("batch", 2, 4), f32("batch", 4, 3), name="addbmm"),
    Case("multiply", torch.addr, f32("batch", "time"), f32("batch"), f32("time"), name="addr"),
    Case("multiply", torch.outer, f32("batch"), f32("time"), name="outer"),
    Case("multiply", torch.kron, f32(4, 2), f32(3, 5), name="kron"),
    Case("multiply", torch.kron, f32(2), f32(5, 3, 2), name="kron, unequal ranks"),
    Case("einsum", einsum("ij,jk->ik"), f32("batch", 4), f32(4, 3), name="matrix product"),
    Case("einsum", einsum("bhld,bhsd->bhls"), f32("batch", 2, "time", 4), f32("batch", 2, "length", 4), name="attention scores"),
    Case("einsum", einsum("blhd,bshd->bhls"), f32("batch", "time", 2, 4), f32("batch", "length", 2, 4), name="heads last"),
    Case("einsum", einsum("i,j->ij"), f32("batch"), f32("time"), name="outer product"),
    Case("einsum", einsum("bi,bi->b"), f32("batch", 4), f32("batch", 4), name="rows"),
    Case("einsum", einsum("ij->ji"), f32("batch", 3), name="transpose"),
    Case("einsum", einsum("ij->"), f32("batch", 3), name="sum"),
    Case("einsum", einsum("ii->i"), f32(3, 3), name="diagonal"),
    Case("einsum", einsum("bii,bij->bj"), f32("batch", 3, 3), f32("batch", 3, 2), name="diagonal in a product"),
    Case("einsum", einsum("...ij,...jk"), f32("batch", 2, 3, 4), f32(2, 4, 5), name="ellipsis, implicit"),
    Case("einsum", einsum("i...,j...->...ij"), f32(2, "batch", 4), f32(3, "batch", 4), name="ellipsis behind"),
    Case("einsum", einsum("ba"), f32("batch", 3), name="implicit order"),
    Case("einsum", einsum("bn,anm,bm->ba"), f32("batch", 4), f32(3, 4, 5), f32("batch", 5), name="three operands"),
    Case("einsum", einsum("ij,ij->j"), f32(1, 3), f32("batch", 3), name="size 1 stretches"),
    Case("einsum", einsum("ij,k->i"), f32("batch", 3), f32("time"), name="sums alone"),
    Case("einsum", einsum("ij,jk->ki"), i64("batch", 4), i64(4, 3), name="int64"),
    Case("einsum", einsum("ij,jk->ik"), f64("batch", 4), f64(4, 3), name="float64"),
    Case("einsum", torch.inner, f32("batch", 3, 4), f32(2, 4), name="inner"),
    Case("einsum", lambda x, y: torch.tensordot(x, y, 2), f32("batch", 3, 4), f32(3, 4, 2), name="tensordot"),
    Case("einsum", lambda x, y: torch.tensordot(x, y, ([0, -1], [2, 0])), f32(2, "batch", 4), f32(4, 3, 2), name="tensordot of pairs"),
    Case("einsum", nn.Bilinear(3, 4, 2), f32("batch", 5, 3), f32("batch", 5, 4), name="bilinear"),
    Case("einsum", torch.trace, positive(4, 4), name="trace"),
    Case("einsum", torch.trace, i64(4, 3), name="trace, int64, not square"),
    Case("logical_and", torch.outer, boolean("batch"), boolean("time"), name="outer"),
    Case("cross", torch.linalg.cross, f32("batch", 3), f32("batch", 3)),
    Case("cross", lambda x, y: torch.linalg.cross(x, y, dim=1), f32("batch", 3, 1), f32(1, 3, 5), name="broadcast"),
    Case("cross", torch.cross, i64(4, 5, 3), i64(4, 5, 3), name="int64"),
    *(Case("cdist", lambda x, y, p=p: torch.cdist(x, y, p=p), f32("batch", "time", 4), f32("batch", "length", 4), name=f"p {p}")
      for p in (0.0, 1.0, 2.0, 2.5, float("inf"))),
    Case("cdist", torch.cdist, f64("time", 4), f64(7, 4), name="float64"),
    Case("vector_norm", nn.PairwiseDistance(), f32("batch", 4), f32("batch", 4), name="pairwise distance"),
    Case("vector_norm", nn.PairwiseDistance(p=1, eps=0, keepdim=True), f32("batch", 4), f32("batch", 4), name="pairwise distance, p 1"),
    Case("cosine_similarity", nn.CosineSimilarity(), f32("batch", 4), f32("batch", 4)),
    Case("cosine_similarity", nn.CosineSimilarity(dim=-1, eps=2.0), positive("batch", 1, 4), positive(3, 4), name="broadcast, eps"),
    Case("cosine_similarity", nn.CosineSimilarity(dim=0), f64(4, "batch"), f64(4, 1), name="first axis, float64"),
    Case("cdist", lambda x: F.pdist(x * 2.0), f32(5, 3), name="pdist"),
    Case("cdist", lambda x: F.pdist(x, p=1.0), f64(4, 6), name="pdist of sums, float64"),
    Case("einsum", lambda x, y: torch.einsum("ij,kj->k", x.bfloat16(), y.bfloat16()).float(), f32("batch", 4), f32(3, 4), name="bfloat16"),
    Case("einsum", lambda x: torch.einsum("ij->i", x.bfloat16()).float(), f32("batch", 4), name="sums of bfloat16"),
]
