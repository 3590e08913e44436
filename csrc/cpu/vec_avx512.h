// Vec as one AVX-512 register. Included by vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define PF_INLINE __attribute__((always_inline)) inline

namespace pythia_fast::cpu::PF_ISA {

struct Vec {
  __m512 v;
};
struct Mask {
  __mmask16 m;
};

PF_INLINE Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
PF_INLINE void store(float* to, Vec x) { _mm512_storeu_ps(to, x.v); }
PF_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
PF_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
PF_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
PF_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
PF_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
PF_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // ab + c
PF_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - ab
// Of max and min, b where either is NaN.
PF_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
PF_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
PF_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
PF_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
// For exp2: x as far as the two others take it, x - floor(x), and a 2^floor(x).
PF_INLINE Vec bounded_power(Vec x) { return x; }
PF_INLINE Vec fraction(Vec x) { return {_mm512_reduce_ps(x.v, 9)}; }  // 9: floor, no exceptions
PF_INLINE Vec times_power(Vec a, Vec x) { return {_mm512_scalef_ps(a.v, x.v)}; }
PF_INLINE Mask greater(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
PF_INLINE bool any(Mask m) { return m.m != 0; }
PF_INLINE std::uint32_t bits(Mask m) { return m.m; }
PF_INLINE Mask mask_of(std::uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
PF_INLINE Vec select(Mask m, Vec yes, Vec no) { return {_mm512_mask_blend_ps(m.m, no.v, yes.v)}; }

PF_INLINE void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1); }

// Sixteen values of a stored type as float32.
PF_INLINE Vec widen(const float* from) { return load(from); }
PF_INLINE Vec widen_bf16(const std::uint16_t* from) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
PF_INLINE Vec widen_f16(const std::uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}

// rows[i] lane j <-> rows[j] lane i.
PF_INLINE void transpose(Vec rows[16]) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_castps_si512(rows[i].v);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i].v = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    rows[i + 8].v = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
    rows[i + 4].v = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
    rows[i + 12].v = _mm512_castsi512_ps(_mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
  }
}

}  // namespace pythia_fast::cpu::PF_ISA
