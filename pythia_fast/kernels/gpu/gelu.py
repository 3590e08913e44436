"""GELU of an accumulator in registers, for the epilogue of a product.

The tensor cores wait for it at the end of each tile: so it is few instructions, with one exp2.
"""

import triton
import triton.language as tl

# log2 of Φ(-t), the normal distribution's tail, by powers of t. The largest error of t Φ(-t) is
# 1.2e-7 on 0 to 6 (a minimax fit in t, weighted by t Φ(-t) + 0.002, so that small tails keep four
# digits), and beyond 6 it falls as Φ does, to zero.
TAIL = tl.constexpr(
    (
        -1.4397703580470989e-06,
        5.4853884648764506e-05,
        -0.0008879820234142244,
        0.008386990055441856,
        -0.053812626749277115,
        -0.4585108757019043,
        -1.1512762308120728,
        -0.9999863505363464,
    )
)
# What the tanh form raises 2 to: -2 √(2/π) (t + 0.044715 t³) / ln 2.
TANH = tl.constexpr((-2.302208198144325, -0.044715 * 2.302208198144325))


@triton.jit
def gelu_of(x, GELU: tl.constexpr):
    """By the tail: x Φ(x) = max(x, 0) - t Φ(-t) with t = |x|, where nothing cancels.

    The exact form's Φ(-t) is one exp2, half the instructions of libdevice's erf; the tanh form's is
    e / (1 + e). NaN for ±infinity.
    """
    t = tl.abs(x)
    if GELU == "none":
        power = tl.full(x.shape, TAIL[0], tl.float32)
        for k in tl.static_range(1, 8):
            power = power * t + TAIL[k]
        tail = tl.exp2(power)
    else:
        e = tl.exp2(t * (TANH[0] + TANH[1] * t * t))
        tail = e / (1.0 + e)
    return tl.maximum(x, 0.0) - t * tail
