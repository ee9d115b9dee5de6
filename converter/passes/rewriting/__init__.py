"""Rewrites of a graph that leave what it computes as it is. One file of rules per subject; `simplify` applies them all."""

from converter.passes.rewriting.rewriter import Rewriter, rule, simplify

__all__ = ["Rewriter", "rule", "simplify"]
