// Vec as two AVX2 registers. Included by vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define PF_INLINE __attribute__((always_inline)) inline

namespace pythia_fast::cpu::PF_ISA {

struct Vec {
  __m256 low;
  __m256 high;
};
struct Mask {
  __m256 low;
  __m256 high;
};

PF_INLINE Vec load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
PF_INLINE void store(float* to, Vec x) {
  _mm256_storeu_ps(to, x.low);
  _mm256_storeu_ps(to + 8, x.high);
}
PF_INLINE Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
PF_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
PF_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
PF_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
PF_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
PF_INLINE Vec fma(Vec a, Vec b, Vec c) {  // ab + c
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
PF_INLINE Vec fnma(Vec a, Vec b, Vec c) {  // c - ab
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
// Of max and min, b where either is NaN.
PF_INLINE Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
PF_INLINE Vec min(Vec a, Vec b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
PF_INLINE Vec abs(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
PF_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
PF_INLINE Vec floor(Vec a) {
  constexpr int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, down), _mm256_round_ps(a.high, down)};
}
// For exp2: x as far as the two others take it, x - floor(x), and a 2^floor(x).
PF_INLINE Vec bounded_power(Vec x) { return max(set1(-127.0F), x); }  // in this order NaN passes
PF_INLINE Vec fraction(Vec x) { return x - floor(x); }
// In two halves, each of which a float's exponent holds.
PF_INLINE __m256 scale8(__m256 a, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i low = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i high = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high));
}
PF_INLINE Vec times_power(Vec a, Vec x) {
  const Vec whole = floor(x);
  return {scale8(a.low, whole.low), scale8(a.high, whole.high)};
}
PF_INLINE Mask greater(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ)};
}
PF_INLINE std::uint32_t bits(Mask m) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(m.low)) |
         static_cast<std::uint32_t>(_mm256_movemask_ps(m.high)) << 8;
}
PF_INLINE bool any(Mask m) { return bits(m) != 0; }
PF_INLINE Mask mask_of(std::uint32_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i low = _mm256_set1_epi32(static_cast<int>(bits & 0xffU));
  const __m256i high = _mm256_set1_epi32(static_cast<int>(bits >> 8 & 0xffU));
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(low, lane), lane)),
          _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(high, lane), lane))};
}
PF_INLINE Vec select(Mask m, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.low, yes.low, m.low), _mm256_blendv_ps(no.high, yes.high, m.high)};
}

PF_INLINE void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1); }

// Sixteen values of a stored type as float32.
PF_INLINE Vec widen(const float* from) { return load(from); }
PF_INLINE __m256 widen8_bf16(const std::uint16_t* from) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
PF_INLINE Vec widen_bf16(const std::uint16_t* from) {
  return {widen8_bf16(from), widen8_bf16(from + 8)};
}
PF_INLINE Vec widen_f16(const std::uint16_t* from) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8)))};
}

// rows[i] lane j <-> rows[j] lane i, by way of memory.
PF_INLINE void transpose(Vec rows[16]) {
  float plain[16][16];
  for (int i = 0; i < 16; ++i) store(plain[i], rows[i]);
  for (int i = 0; i < 16; ++i) {
    float column[16];
    for (int j = 0; j < 16; ++j) column[j] = plain[j][i];
    rows[i] = load(column);
  }
}

}  // namespace pythia_fast::cpu::PF_ISA
