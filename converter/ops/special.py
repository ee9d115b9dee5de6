"""Special functions, element by element: the error function and its kin. The gamma function's stand in `gamma`.

All are computed in float64 and rounded to the operand's dtype.
"""

from __future__ import annotations

import math

import numpy as np

from converter.facts import Facts
from converter.formulas import Space, Term, in_float64, ratio
from converter.ir import Array, DType, TensorSpec
from converter.ops._rules import each, elementwise, require_float
from converter.opset import op


@each
def real(x: TensorSpec) -> TensorSpec:
    require_float(x)
    return x


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


def _erfc_tail(x: Array) -> Array:
    """erfc(x) for x ≥ 1.25. The exponent is split so that x² keeps its low bits, as in fdlibm."""
    x = np.minimum(x, 28.0)
    s = 1.0 / (x * x)
    exponent = np.where(x < 1.0 / 0.35, ratio(_ERFC_NEAR, s), ratio(_ERFC_FAR, s))
    high = (x.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)
    return np.exp(-high * high - 0.5625) * np.exp((high - x) * (high + x) + exponent) / x


def _erf64(x: Array) -> Array:
    size = np.abs(np.atleast_1d(np.nan_to_num(x)))
    small = size + size * ratio(_ERF_SMALL, np.minimum(size, 1.0) ** 2)
    middle = _ERX + ratio(_ERF_MIDDLE, np.clip(size, 0.84, 1.25) - 1.0)
    tail = 1.0 - _erfc_tail(np.maximum(size, 1.25))
    value = np.where(size < 0.84375, small, np.where(size < 1.25, middle, tail)).reshape(x.shape)
    return np.where(np.isnan(x), x, np.copysign(value, x))


BLOCK = 2**14
"""How many values are taken at a time, so that what is between the steps stays in a processor's cache."""


def _erfc64(x: Array) -> Array:
    if x.size > BLOCK:
        flat = x.reshape(-1)
        return np.concatenate([_erfc64(flat[start:start + BLOCK]) for start in range(0, flat.size, BLOCK)]).reshape(x.shape)
    clean = np.atleast_1d(np.nan_to_num(x))
    size = np.abs(clean)
    small = 1.0 - (clean + clean * ratio(_ERF_SMALL, np.minimum(size, 1.0) ** 2))
    middle = (1.0 - _ERX) - ratio(_ERF_MIDDLE, np.clip(size, 0.84, 1.25) - 1.0)
    tail = np.where(size < 1.25, middle, _erfc_tail(np.maximum(size, 1.25)))
    value = np.where(clean < 0.84375, np.where(clean < -0.84375, 2.0 - tail, small), tail).reshape(x.shape)
    return np.where(np.isnan(x), x, value)


# Single-precision start of M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2010), constant term first.
_ERFINV_CENTRE = [1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
                  3.43273939e-07, 2.81022636e-08]
_ERFINV_TAIL = [2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
                0.000100950558, -0.000200214257]


# Percentage points of the normal distribution: M. J. Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988), constant
# term first, (numerator, denominator): within 0.425 of the middle, and of √(-log tail) up to 5 and beyond.
_MIDDLE = ([3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
            4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3],
           [1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3, 2.1213794301586595867e+4,
            3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3])
_SIDE = ([1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0, 1.27045825245236838258e0,
          2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4],
         [1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
          1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9])
_END = ([6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1, 2.65321895265761230930e-2,
         1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7],
        [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
         1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15])


def _quantile(f: Space, q: Term, tail: Term) -> Term:
    """The normal distribution's quantile of p, from q = p - 1/2 and tail = min(p, 1 - p), in float64."""
    inner = f.clip(q, -0.425, 0.425)
    middle = q * ratio(_MIDDLE, 0.180625 - inner * inner)
    r = f.sqrt(-f.log(f.clip(tail, 5e-324, 0.5)))
    outer = f.where(r <= 5.0, ratio(_SIDE, f.minimum(r, 5.0) - 1.6), ratio(_END, r - 5.0))
    outer = f.where(f.equal(tail, 0.0), math.inf, outer) * f.sign(q)
    return f.where((tail >= 0.0) & (tail <= 0.5), f.where(f.abs(q) <= 0.425, middle, outer), math.nan)


@op(infer=real, facts=Facts(domain=((-0.95, 0.95),)))
@in_float64
def erfinv(f: Space, x: Term) -> Term:
    """The inverse of erf: infinite at -1 and 1, NaN outside."""
    return _quantile(f, x * 0.5, (1.0 - f.abs(x)) * 0.5) * math.sqrt(0.5)


@op(infer=real, facts=Facts(domain=((0.05, 0.95),)))
@in_float64
def ndtri(f: Space, p: Term) -> Term:
    """The value below which a normal variable lies with probability p: infinite at 0 and 1, NaN outside: torch.special.ndtri."""
    return _quantile(f, p - 0.5, f.where(p < 0.5, p, 1.0 - p))


@op(infer=real)
@in_float64
def erfcx(f: Space, x: Term) -> Term:
    """e^(x²) · erfc(x), which neither overflows nor vanishes for large x: torch.special.erfcx.

    From 1.25 on the approximation of erfc without its exponential; below, e^(x²) · (1 - erf x), x² split at a square that is exact.
    """
    large = f.maximum(x, 1.25)
    inverse = f.reciprocal(large)
    s = inverse * inverse
    tail = f.exp(f.where(large < 1.0 / 0.35, ratio(_ERFC_NEAR, s), ratio(_ERFC_FAR, s)) - 0.5625) * inverse
    small = f.clip(x, -30.0, 1.25)
    high = f.astype(f.astype(small, dtype=DType.FLOAT32), dtype=DType.FLOAT64)
    body = f.exp(high * high) * (f.exp((small - high) * (small + high)) * (1.0 - f.erf(small)))
    return f.where(x < 1.25, body, tail)


@op(infer=elementwise(kinds=lambda dtype: dtype.is_float), literals=True, facts=Facts(domain=((0.1, 4.0),)))
def xlogy(f: Space, x: Term, y: Term) -> Term:
    """x · log(y), 0 where x is 0, and NaN where y is NaN: torch.xlogy."""
    return f.where(f.isnan(y), y, f.where(f.equal(x, 0.0), 0.0, x * f.log(y)))




@op(infer=real)
def erf(x: Array) -> Array:
    """2/√π · ∫₀ˣ e^(-t²) dt, by fdlibm's rational approximations."""
    return _erf64(x.astype(np.float64, copy=False)).astype(x.dtype)


@in_float64
def _complement(f: Space, x: Term) -> Term:
    """fdlibm's pieces, with its approximation of the tail by way of `erfcx`."""
    middle = (1.0 - _ERX) - ratio(_ERF_MIDDLE, f.clip(x, 0.84, 1.25) - 1.0)
    large = f.clip(x, 1.25, 28.0)
    high = f.astype(f.astype(large, dtype=DType.FLOAT32), dtype=DType.FLOAT64)
    tail = f.exp(high * high * -1.0) * (f.exp((high - large) * (high + large)) * f.erfcx(large))
    return f.where(x < 0.84375, 1.0 - f.erf(x), f.where(x < 1.25, middle, tail))


@op(infer=real, formula=_complement)
def erfc(x: Array) -> Array:
    """1 - erf(x), exact to rounding for large x too."""
    return _erfc64(x.astype(np.float64, copy=False)).astype(x.dtype)
