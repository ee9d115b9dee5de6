"""Modules that use linear algebra and special functions: traced, through JSON, and run in NumPy and ONNX Runtime at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from adapters.numpy.session import NumpySession
from adapters.onnx.export import save_onnx
from adapters.onnx.session import OnnxRuntimeSession
from adapters.torch.tracing.trace import trace
from converter.equivalence.compare import compare
from converter.errors import UnsupportedError
from converter.format import load_json, save_json

SESSIONS: dict[str, Callable[[Any], Any]] = {"numpy": NumpySession, "onnxruntime": OnnxRuntimeSession}


def draw(generator: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


class Kalman(torch.nn.Module):
    """One step of a Kalman filter: predict, then correct by an observation."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = torch.nn.Parameter(torch.eye(4) + 0.1 * torch.ones(4, 4).triu(1))
        self.observation = torch.nn.Parameter(torch.eye(2, 4))

    def forward(self, mean: torch.Tensor, root: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        covariance = self.transition @ (root @ root.mT) @ self.transition.mT + torch.eye(4)
        mean = (self.transition @ mean.unsqueeze(-1)).squeeze(-1)
        spread = self.observation @ covariance @ self.observation.mT + 0.1 * torch.eye(2)
        gain = torch.linalg.solve(spread, self.observation @ covariance).mT
        mean = mean + (gain @ (seen - mean @ self.observation.mT).unsqueeze(-1)).squeeze(-1)
        return mean, torch.linalg.cholesky(covariance - gain @ self.observation @ covariance + 1e-3 * torch.eye(4))

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return draw(generator, size, 4), draw(generator, size, 4, 4), draw(generator, size, 2)


class Process(torch.nn.Module):
    """A Gaussian process: its log likelihood, and the mean at other places."""

    def forward(self, places: torch.Tensor, values: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kernel = torch.exp(-torch.cdist(places, places).square()) + 0.1 * torch.eye(places.shape[0])
        factor = torch.linalg.cholesky(kernel)
        weights = torch.cholesky_solve(values.unsqueeze(-1), factor)
        fit = (values.unsqueeze(-1) * weights).sum()
        across = torch.exp(-torch.cdist(others, places).square())
        return -0.5 * fit - factor.diagonal().log().sum() - 0.5 * torch.logdet(kernel), (across @ weights).squeeze(-1)

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return draw(generator, size + 1, 3), draw(generator, size + 1), draw(generator, 5, 3)


class Whitening(torch.nn.Module):
    """Samples with their covariance taken out, by its eigenvectors; and how large it is."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        centred = x - x.mean(0)
        covariance = centred.mT @ centred / x.shape[0] + 0.1 * torch.eye(5)
        values, vectors = torch.linalg.eigh(covariance)
        white = centred @ (vectors * values.rsqrt()) @ vectors.mT
        u, s, vh = torch.linalg.svd(white, full_matrices=False)
        return white, (u * s.clamp(max=2.0)) @ vh, torch.linalg.matrix_norm(x, 2), torch.linalg.cond(covariance)

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return (draw(generator, size + 6, 5),)


class Fit(torch.nn.Module):
    """A line through points, three ways, and the rank."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = torch.linalg.lstsq(x, y)
        q, r = torch.linalg.qr(x)
        back = torch.linalg.solve_triangular(r, q.mT @ y, upper=True)
        return found.solution, found.rank, back, torch.linalg.pinv(x) @ y

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return draw(generator, size + 5, 3), draw(generator, size + 5, 2)


class Flow(torch.nn.Module):
    """A rotation as the exponential of an antisymmetric matrix, and a matrix as its LU factors with the logarithm of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(4, 4), orthogonal_map="matrix_exp")
        self.weight = torch.nn.Parameter(torch.eye(4) + 0.3 * torch.ones(4, 4).tril(-1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p, lower, upper = torch.linalg.lu(self.weight)
        sign, size = torch.linalg.slogdet(self.weight)
        packed, pivots = torch.linalg.lu_factor(self.weight)
        y = self.turn(x) @ (p @ lower @ upper)
        return y, sign * size, torch.linalg.lu_solve(packed, pivots, y.mT), torch.linalg.inv(self.weight), torch.linalg.matrix_power(
            self.weight, -3)

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return (draw(generator, size, 4),)


class Densities(torch.nn.Module):
    """Logarithms of densities with their normalizing functions, and quantiles."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shape = torch.nn.functional.softplus(x) + 0.1
        gamma = torch.distributions.Gamma(shape, 2.0, validate_args=False).log_prob(shape)  # type: ignore[no-untyped-call]
        student = torch.lgamma(shape + 0.5) - torch.lgamma(shape) - (shape + 0.5) * torch.log1p(x.square() / (2 * shape))
        mises = torch.distributions.VonMises(x, shape, validate_args=False).log_prob(x * 0.5)  # type: ignore[no-untyped-call]
        share = torch.sigmoid(x)
        return (gamma, student, mises, torch.special.ndtri(share), torch.special.log_ndtr(x), torch.special.gammainc(shape, shape.flip(0)),
                torch.special.polygamma(1, shape), torch.special.digamma(x))

    @staticmethod
    def arguments(generator: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        return (draw(generator, size, 7),)


MODULES = (Kalman, Process, Whitening, Fit, Flow, Densities)


@pytest.mark.parametrize("runtime", SESSIONS)
@pytest.mark.parametrize("kind", MODULES)
def test_live_modules(kind: type[Any], runtime: str, tmp_path: Path) -> None:
    """What a module gives, its file gives too, at sizes that were not traced."""
    generator = np.random.default_rng(3)
    module = kind().eval()
    with torch.no_grad():
        program = trace(module, kind.arguments(generator, 3))
        save_json(program.model, tmp_path / "model.json")
        session = SESSIONS[runtime](load_json(tmp_path / "model.json"))
        wide = kind().double().eval()
        wide.load_state_dict(module.state_dict())
        wide.double()
        for size in (3, 1, 6):
            arguments = kind.arguments(generator, size)
            names = [name for name in program.input_names if name is not None]
            outputs = session.run({name: item.numpy() for name, item in zip(names, arguments, strict=True)})
            own, truth = module(*arguments), wide(*(item.double() for item in arguments))
            own, truth = ((item,) if isinstance(item, torch.Tensor) else item for item in (own, truth))
            assert len(outputs) == len(own)
            for output, mine, wanted in zip(outputs.values(), own, truth, strict=True):
                verdict = compare(output, wanted.numpy(), mine.numpy())
                assert verdict, f"size {size}: {verdict.reason}"


@pytest.mark.parametrize("opset", [18, pytest.param(23, marks=pytest.mark.long)])
def test_files_are_valid(opset: int, tmp_path: Path) -> None:
    """Loops and all, for the oldest and the newest opset."""
    for kind in MODULES:
        program = trace(kind().eval(), kind.arguments(np.random.default_rng(0), 3))
        save_onnx(program.model, tmp_path / "model.onnx", opset=opset)
        onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
        assert {item.domain for item in onnx.load(str(tmp_path / "model.onnx")).opset_import} <= {""}


class Careful(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor, info = torch.linalg.cholesky_ex(x)
        return torch.where(info.unsqueeze(-1).unsqueeze(-1) > 0, torch.eye(x.shape[-1]), factor)


def test_the_output_that_tells_of_failure_is_refused() -> None:
    """Where a factorization fails, nothing here tells a number of it, so that what depends on it cannot be carried."""
    with pytest.raises(UnsupportedError, match="factorization failed"):
        trace(Careful(), (torch.eye(3).expand(2, 3, 3),))


class Eigenvalues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real.sum(-1)


def test_eigenvalues_of_general_matrices_run_in_numpy_and_are_refused_for_onnx() -> None:
    x = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    program = trace(Eigenvalues(), (x,))
    (found,) = NumpySession(program.model).run({program.model.graph.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(found, Eigenvalues()(x).numpy(), rtol=1e-5)
    with pytest.raises(UnsupportedError, match="eig: no ONNX lowering"):
        OnnxRuntimeSession(program.model)


def test_singular_matrices_do_not_pass_for_regular_ones() -> None:
    """torch raises; ONNX cannot, and gives no finite inverse."""
    program = trace(torch.nn.Sequential(Inverse()), (torch.eye(3) * 2,))
    (found,) = OnnxRuntimeSession(program.model).run({program.model.graph.inputs[0].name: np.ones((3, 3), np.float32)}).values()
    assert not np.isfinite(found).all()


class Thorough(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.linalg.lstsq(x, y, driver="gelsd"))


def test_least_squares_with_residuals() -> None:
    """Of full rank they are torch's; otherwise torch gives none, a size that depends on values, and here they are NaN."""
    generator = np.random.default_rng(0)
    x, y = draw(generator, 2, 6, 3), draw(generator, 2, 6, 2)
    program = trace(Thorough(), (x, y), dims="static")
    for session in SESSIONS.values():
        runtime = session(program.model)
        for found, wanted in zip(runtime.run({"x": x.numpy(), "y": y.numpy()}).values(), Thorough()(x, y), strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
        deficient = list(runtime.run({"x": np.ones((2, 6, 3), np.float32), "y": y.numpy()}).values())
        assert np.isnan(deficient[1]).all()
        assert (deficient[2] == 1).all()


class Inverse(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(x)


class Norms(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        orders = ("fro", "nuc", 1, -1, 2, float("inf"))
        return *(torch.linalg.matrix_norm(x, ord) for ord in orders), torch.linalg.norm(x, 2, dim=(0, 2)), torch.linalg.norm(x)


def test_norms_keep_every_size_free() -> None:
    program = trace(Norms(), (torch.randn(2, 3, 4),))
    (port,) = program.model.graph.inputs
    assert all(not isinstance(size, int) for size in port.spec.shape)
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))
    for session in SESSIONS.values():
        for found, wanted in zip(session(program.model).run({port.name: x.numpy()}).values(), Norms()(x), strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-5)
