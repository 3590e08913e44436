// Sixteen float32 lanes and what the kernels do with them, in the widest form that the instruction
// set PF_ISA has. A kernel is written once in terms of Vec; each kernels_<isa>.cpp compiles it into
// a namespace of its own with that instruction set's compiler options. Such a file must not
// instantiate inline functions that others share (of the standard library, say): the linker keeps
// one copy, and it might be the one that an older processor cannot run.
#pragma once

#ifndef PF_ISA
#error "include this from kernels_<isa>.cpp, which defines PF_ISA"
#endif

#include <cstdint>

#if defined(__AVX512F__)
#include "cpu/vec_avx512.h"
#elif defined(__AVX2__)
#include "cpu/vec_avx2.h"
#else
#include "cpu/vec_portable.h"
#endif

namespace pythia_fast::cpu::PF_ISA {

constexpr int lanes = 16;

// 2^x = 2^(x - floor(x)) 2^floor(x), the first by a polynomial on [0, 1). 2^0 is exactly 1, NaN
// stays NaN; below -126 the result is 0 or a number that is 0 beside anything that counts. Degree
// 5: relative error 1.5e-7. Degree 3: 8.6e-5, less than what rounding to bfloat16 costs.
template <int degree>
PF_INLINE Vec exp2(Vec x) {
  static_assert(degree == 3 || degree == 5);
  x = bounded_power(x);
  const Vec rest = fraction(x);
  if constexpr (degree == 3) {
    Vec p = fma(set1(0.0770670635F), rest, set1(0.227644968F));
    p = fma(p, rest, set1(0.695116792F));
    return times_power(fma(p, rest, set1(1.0F)), x);
  } else {
    Vec p = fma(set1(0.00186713041F), rest, set1(0.0090170296F));
    p = fma(p, rest, set1(0.0557999136F));
    p = fma(p, rest, set1(0.24016445F));
    p = fma(p, rest, set1(0.693151312F));
    return times_power(fma(p, rest, set1(1.0F)), x);
  }
}

constexpr float log2_e = 1.44269504F;

// x Φ(x) = max(x, 0) - |x| Φ(-|x|), where log2 Φ(-z) is a polynomial on [0, 6]: the absolute error
// is below 1e-7 (erf) and 1.1e-7 (tanh), fitted by iteratively reweighted least squares. Beyond 6,
// what is taken from max(x, 0) stays the 6e-9 that it is there.
PF_INLINE Vec gelu_erf(Vec x) {
  const Vec t = min(set1(6.0F), abs(x));  // in this order NaN passes
  Vec p = fma(set1(2.90425017e-05F), t, set1(-0.000732323333F));
  p = fma(p, t, set1(0.00795378628F));
  p = fma(p, t, set1(-0.0532051114F));
  p = fma(p, t, set1(-0.458934822F));
  p = fma(p, t, set1(-1.15114495F));
  p = fma(p, t, set1(-0.999999096F));
  return fnma(t, exp2<5>(p), max(x, set1(0.0F)));
}

PF_INLINE Vec gelu_tanh(Vec x) {
  const Vec t = min(set1(6.0F), abs(x));  // in this order NaN passes
  Vec p = fma(set1(-2.88658017e-05F), t, set1(0.000463742689F));
  p = fma(p, t, set1(-0.00252404479F));
  p = fma(p, t, set1(0.00391999551F));
  p = fma(p, t, set1(0.00366549621F));
  p = fma(p, t, set1(-0.0492846127F));
  p = fma(p, t, set1(-0.459811162F));
  p = fma(p, t, set1(-1.1510448F));
  p = fma(p, t, set1(-1.00000095F));
  return fnma(t, exp2<5>(p), max(x, set1(0.0F)));
}

}  // namespace pythia_fast::cpu::PF_ISA
