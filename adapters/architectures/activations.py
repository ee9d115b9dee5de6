"""Activations, as the operators that make them, one after the other: configs and layers each have their own names for these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Activation = tuple[tuple[str, Mapping[str, Any]], ...]

IDENTITY: Activation = ()
RELU: Activation = (("relu", {}),)
RELU6: Activation = (("hardtanh", {"min_val": 0.0, "max_val": 6.0}),)
RELU_SQUARED: Activation = (("relu", {}), ("square", {}))
LEAKY_RELU: Activation = (("leaky_relu", {}),)
ELU: Activation = (("elu", {}),)
GELU: Activation = (("gelu", {}),)
GELU_TANH: Activation = (("gelu", {"approximate": "tanh"}),)
QUICK_GELU: Activation = (("quick_gelu", {}),)
SILU: Activation = (("silu", {}),)
MISH: Activation = (("mish", {}),)
TANH: Activation = (("tanh", {}),)
SIGMOID: Activation = (("sigmoid", {}),)
HARDSWISH: Activation = (("hardswish", {}),)
HARDSIGMOID: Activation = (("hardsigmoid", {}),)
