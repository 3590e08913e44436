// Vec as an array, for a compiler that knows nothing of the processor. Included by vec.h.
#pragma once

#include <cstdint>

#define PF_INLINE __attribute__((always_inline)) inline

namespace pythia_fast::cpu::PF_ISA {

struct Vec {
  float v[16];
};
struct Mask {
  std::uint32_t m;
};

#define PF_LANES(expression)     \
  Vec result;                    \
  for (int i = 0; i < 16; ++i) { \
    result.v[i] = expression;    \
  }                              \
  return result

PF_INLINE Vec load(const float* from) { PF_LANES(from[i]); }
PF_INLINE void store(float* to, Vec x) {
  for (int i = 0; i < 16; ++i) to[i] = x.v[i];
}
PF_INLINE Vec set1(float x) { PF_LANES(x); }
PF_INLINE Vec operator+(Vec a, Vec b) { PF_LANES(a.v[i] + b.v[i]); }
PF_INLINE Vec operator-(Vec a, Vec b) { PF_LANES(a.v[i] - b.v[i]); }
PF_INLINE Vec operator*(Vec a, Vec b) { PF_LANES(a.v[i] * b.v[i]); }
PF_INLINE Vec operator/(Vec a, Vec b) { PF_LANES(a.v[i] / b.v[i]); }
PF_INLINE Vec fma(Vec a, Vec b, Vec c) { PF_LANES(a.v[i] * b.v[i] + c.v[i]); }   // ab + c
PF_INLINE Vec fnma(Vec a, Vec b, Vec c) { PF_LANES(c.v[i] - a.v[i] * b.v[i]); }  // c - ab
// Of max and min, b where either is NaN.
PF_INLINE Vec max(Vec a, Vec b) { PF_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
PF_INLINE Vec min(Vec a, Vec b) { PF_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
PF_INLINE Vec abs(Vec a) { PF_LANES(__builtin_fabsf(a.v[i])); }
PF_INLINE Vec sqrt(Vec a) { PF_LANES(__builtin_sqrtf(a.v[i])); }
// For exp2: x as far as the two others take it, x - floor(x), and a 2^floor(x).
PF_INLINE Vec bounded_power(Vec x) { return max(set1(-127.0F), x); }  // in this order NaN passes
// For |x| < 2^22: adding 1.5 · 2^23 leaves no bits for a fraction. A whole number may come out one
// lower than it is, and its fraction as 1: 2^x is the same.
PF_INLINE Vec floor(Vec x) {
  const Vec shifted = x - set1(0.5F) + set1(12582912.0F);
  return shifted - set1(12582912.0F);
}
PF_INLINE Vec fraction(Vec x) { return x - floor(x); }
// In two halves, each of which a float's exponent holds.
PF_INLINE Vec times_power(Vec a, Vec x) {
  const Vec n = floor(x);
  Vec result;
  for (int i = 0; i < 16; ++i) {
    const bool fits = __builtin_fabsf(n.v[i]) <= 128;  // else a is NaN or n no result that counts
    const int whole = fits ? static_cast<int>(n.v[i]) : 0;
    const int half = whole / 2;
    const float low = __builtin_bit_cast(float, static_cast<std::uint32_t>(half + 127) << 23);
    const float high =
        __builtin_bit_cast(float, static_cast<std::uint32_t>(whole - half + 127) << 23);
    result.v[i] = a.v[i] * low * high;
  }
  return result;
}
PF_INLINE Mask greater(Vec a, Vec b) {
  Mask result{0};
  for (int i = 0; i < 16; ++i) result.m |= static_cast<std::uint32_t>(a.v[i] > b.v[i]) << i;
  return result;
}
PF_INLINE bool any(Mask m) { return m.m != 0; }
PF_INLINE std::uint32_t bits(Mask m) { return m.m; }
PF_INLINE Mask mask_of(std::uint32_t bits) { return {bits}; }
PF_INLINE Vec select(Mask m, Vec yes, Vec no) {
  PF_LANES((m.m >> i & 1U) != 0 ? yes.v[i] : no.v[i]);
}

PF_INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 2); }

// Sixteen values of a stored type as float32.
PF_INLINE Vec widen(const float* from) { return load(from); }
PF_INLINE Vec widen_bf16(const std::uint16_t* from) {
  PF_LANES(__builtin_bit_cast(float, static_cast<std::uint32_t>(from[i]) << 16));
}
PF_INLINE float widen_one_f16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7fffU;
  if (magnitude >= 0x7c00U) return __builtin_bit_cast(float, sign | 0x7f800000U | magnitude << 13);
  // Multiplying by 2^112 moves the exponent's bias from 15 to 127, subnormal values included.
  const float value = __builtin_bit_cast(float, magnitude << 13) * 0x1p112F;
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, value));
}
PF_INLINE Vec widen_f16(const std::uint16_t* from) { PF_LANES(widen_one_f16(from[i])); }

// rows[i] lane j <-> rows[j] lane i.
PF_INLINE void transpose(Vec rows[16]) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < i; ++j) {
      const float kept = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = kept;
    }
  }
}

#undef PF_LANES

}  // namespace pythia_fast::cpu::PF_ISA
