"""Special functions, element by element: the error function and its kin, and the gamma function's logarithm.

All are computed in float64 and rounded to the operand's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np

from converter.ir import TensorSpec
from converter.ops._rules import Array, elementwise, require_float
from converter.opset import op

Kernel = Callable[[Array], Array]


def _real(x: TensorSpec) -> TensorSpec:
    require_float(x)
    return x


def _in_float64(kernel: Kernel) -> Kernel:
    """`kernel` on float64, its result in the operand's dtype."""

    @wraps(kernel)
    def compute(x: Array) -> Array:
        return kernel(x.astype(np.float64, copy=False)).astype(x.dtype)

    return compute


# Rational approximations of fdlibm's s_erf.c (Sun Microsystems, 1993), constant term first, one pair (P, Q) an interval.
_ERF_SMALL = ([1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02, -5.77027029648944159157e-03,
               -2.37630166566501626084e-05],
              [1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03, 1.32494738004321644526e-04,
               -3.96022827877536812320e-06])
_ERF_MIDDLE = ([-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01, 3.18346619901161753674e-01,
                -1.10894694282396677476e-01, 3.54783043256182359371e-02, -2.16637559486879084300e-03],
               [1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02, 1.26171219808761642112e-01,
                1.36370839120290507362e-02, 1.19844998467991074170e-02])
_ERFC_NEAR = ([-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01, -6.23753324503260060396e+01,
               -1.62396669462573470355e+02, -1.84605092906711035994e+02, -8.12874355063065934246e+01, -9.81432934416914548592e+00],
              [1.0, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02, 6.45387271733267880336e+02,
               4.29008140027567833386e+02, 1.08635005541779435134e+02, 6.57024977031928170135e+00, -6.04244152148580987438e-02])
_ERFC_FAR = ([-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01, -1.60636384855821916062e+02,
              -6.37566443368389627722e+02, -1.02509513161107724954e+03, -4.83519191608651397019e+02],
             [1.0, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03, 3.19985821950859553908e+03,
              2.55305040643316442583e+03, 4.74528541206955367215e+02, -2.24409524465858183362e+01])
_ERX = 8.45062911510467529297e-01


def _polynomial(coefficients: list[float], x: Array) -> Array:
    """Horner's scheme, constant term first."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def _ratio(pair: tuple[list[float], list[float]], x: Array) -> Array:
    return _polynomial(pair[0], x) / _polynomial(pair[1], x)


def _erfc_tail(x: Array) -> Array:
    """erfc(x) for x ≥ 1.25. The exponent is split so that x² keeps its low bits, as in fdlibm."""
    x = np.minimum(x, 28.0)
    s = 1.0 / (x * x)
    ratio = np.where(x < 1.0 / 0.35, _ratio(_ERFC_NEAR, s), _ratio(_ERFC_FAR, s))
    high = (x.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)
    return np.exp(-high * high - 0.5625) * np.exp((high - x) * (high + x) + ratio) / x


def _erf64(x: Array) -> Array:
    size = np.abs(np.atleast_1d(np.nan_to_num(x)))
    small = size + size * _ratio(_ERF_SMALL, np.minimum(size, 1.0) ** 2)
    middle = _ERX + _ratio(_ERF_MIDDLE, np.clip(size, 0.84, 1.25) - 1.0)
    tail = 1.0 - _erfc_tail(np.maximum(size, 1.25))
    value = np.where(size < 0.84375, small, np.where(size < 1.25, middle, tail)).reshape(x.shape)
    return np.where(np.isnan(x), x, np.copysign(value, x))


def _erfc64(x: Array) -> Array:
    clean = np.atleast_1d(np.nan_to_num(x))
    size = np.abs(clean)
    small = 1.0 - _erf64(clean)
    middle = 1.0 - _ERX - _ratio(_ERF_MIDDLE, np.clip(size, 0.84, 1.25) - 1.0)
    tail = np.where(size < 1.25, middle, _erfc_tail(np.maximum(size, 1.25)))
    value = np.where(clean < 0.84375, np.where(clean < -0.84375, 2.0 - tail, small), tail).reshape(x.shape)
    return np.where(np.isnan(x), x, value)


# Single-precision start of M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2010), constant term first.
_ERFINV_CENTRE = [1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
                  3.43273939e-07, 2.81022636e-08]
_ERFINV_TAIL = [2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
                0.000100950558, -0.000200214257]


def _erfinv64(x: Array) -> Array:
    inside = np.where(np.abs(x) < 1.0, x, 0.0)
    size = np.abs(inside)
    w = -np.log1p(-size) - np.log1p(size)
    start = size * np.where(w < 5.0, _polynomial(_ERFINV_CENTRE, w - 2.5), _polynomial(_ERFINV_TAIL, np.sqrt(np.clip(w, 5.0, 16.0)) - 3.0))
    # Nearer to 1 than float32 comes: erfc(y) ≈ exp(-y²) / (y √π), solved once.
    tail = np.maximum(-np.log1p(-size), 1.0)
    y = np.where(w < 16.0, start, np.sqrt(np.maximum(tail - 0.5 * np.log(np.pi * tail), 0.0)))
    for _ in range(3):
        # Halley's step on erfc where erf would lose digits: for f = erf, f''/f' = -2y.
        error = np.where(size > 0.5, (1.0 - size) - _erfc64(y), _erf64(y) - size)
        step = error / (2.0 / np.sqrt(np.pi) * np.exp(-y * y))
        y = y - step / (1.0 + y * step)
    edge = np.where(np.abs(x) == 1.0, np.inf, np.nan)
    return np.copysign(np.where(np.abs(x) < 1.0, y, edge), x)


# Bernoulli numbers over their factorials in Stirling's series (Abramowitz & Stegun 6.1.41 and 6.3.18).
_STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400]
_DIGAMMA = [-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160]
_SHIFT = 8
_EULER = 0.57721566490153286061
# ζ(k) for k = 2, 3, …: the sum of 1 / n^k with Euler and Maclaurin's remainder.
_ZETA = [float(np.sum(np.arange(1.0, 30.0) ** -k)) + 30.0 ** (1 - k) / (k - 1) + 0.5 * 30.0 ** -k + k / 12 * 30.0 ** (-k - 1)
         - k * (k + 1) * (k + 2) / 720 * 30.0 ** (-k - 3) + k * (k + 1) * (k + 2) * (k + 3) * (k + 4) / 30240 * 30.0 ** (-k - 5)
         for k in range(2, 40)]


def _lgamma_positive(x: Array) -> Array:
    """log Γ(x) for x > 0: Stirling's series after a shift upwards; around 1 and 2, where it vanishes, the series of log Γ(1 + z)."""
    product, shifted = np.ones_like(x), x.copy()
    for _ in range(_SHIFT):
        low = shifted < _SHIFT
        product, shifted = np.where(low, product * shifted, product), np.where(low, shifted + 1.0, shifted)
    series = _polynomial(_STIRLING, 1.0 / (shifted * shifted)) / shifted
    value = (shifted - 0.5) * np.log(shifted) - shifted + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    z = np.where(x < 1.5, x - 1.0, x - 2.0)
    z = np.where(np.abs(z) < 0.3, z, 0.0)
    around = -_EULER * z + z * z * _polynomial([zeta * (-1) ** k / k for k, zeta in enumerate(_ZETA, 2)], z)
    around = np.where(x < 1.5, around, around + np.log1p(z))
    near = (np.abs(x - 1.0) < 0.3) | (np.abs(x - 2.0) < 0.3)
    return np.where(np.isinf(x), np.inf, np.where(near, around, value))


def _lgamma64(x: Array) -> Array:
    positive = _lgamma_positive(np.where(x > 0, x, 1.0))
    below = np.where(x < 0, x, -0.5)
    # Reflection: log |Γ(x)| = log(π / |sin πx|) - log Γ(1 - x). The argument of the sine is reduced exactly.
    sine = np.abs(np.sin(np.pi * (below - np.rint(below))))
    reflected = np.log(np.pi) - np.log(sine) - _lgamma_positive(1.0 - below)
    reflected = np.where((below == np.floor(below)) | np.isinf(below), np.inf, reflected)
    return np.where(np.isnan(x), x, np.where(x > 0, positive, np.where(x == 0, np.inf, reflected)))


def _digamma_positive(x: Array) -> Array:
    total, shifted = np.zeros_like(x), x.copy()
    for _ in range(_SHIFT + 2):
        low = shifted < _SHIFT + 2
        total, shifted = np.where(low, total - 1.0 / shifted, total), np.where(low, shifted + 1.0, shifted)
    inverse = 1.0 / (shifted * shifted)
    return total + np.log(shifted) - 0.5 / shifted + inverse * _polynomial(_DIGAMMA, inverse)


def _digamma64(x: Array) -> Array:
    positive = _digamma_positive(np.where(x > 0, x, 1.0))
    below = np.where(x < 0, x, -0.5)
    fraction = below - np.rint(below)
    reflected = _digamma_positive(1.0 - below) - np.pi / np.tan(np.pi * fraction)
    reflected = np.where((below == np.floor(below)) | np.isinf(below), np.nan, reflected)
    return np.where(np.isnan(x), x, np.where(x > 0, positive, np.where(x == 0, np.copysign(np.inf, -x), reflected)))


_erf, _erfc, _erfinv, _lgamma, _digamma = map(_in_float64, (_erf64, _erfc64, _erfinv64, _lgamma64, _digamma64))


@op(infer=_real)
def erf(x: Array) -> Array:
    """2/√π · ∫₀ˣ e^(-t²) dt, by fdlibm's rational approximations."""
    return _erf(x)


@op(infer=_real)
def erfc(x: Array) -> Array:
    """1 - erf(x), exact to rounding for large x too."""
    return _erfc(x)


@op(infer=_real)
def erfinv(x: Array) -> Array:
    """The inverse of erf: infinite at -1 and 1, NaN outside."""
    return _erfinv(x)


@op(infer=_real)
def lgamma(x: Array) -> Array:
    """log |Γ(x)|; infinite at 0 and at the negative integers."""
    return _lgamma(x)


@op(infer=_real)
def digamma(x: Array) -> Array:
    """Γ'(x) / Γ(x); an infinity of the opposite sign at 0, NaN at the negative integers."""
    return _digamma(x)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True)
def xlogy(x: Array, y: Array) -> Array:
    """x · log(y), 0 where x is 0, and NaN where y is NaN: torch.xlogy."""
    product = np.where(x == 0, np.zeros((), x.dtype), x * np.log(y))
    return np.where(np.isnan(y), y, product)
