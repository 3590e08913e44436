// The two sides of a product C = W X, W the weights [rows, K], X the activations [K, tokens].
//
// Activations are feature-major, in panels of sixteen tokens, one per lane: whatever is done along
// the features (LayerNorm, rotary, softmax, logsumexp) is then arithmetic on whole vectors without
// a shuffle, and a product's result is the next product's input as it stands. An arithmetic says
// how X and packed W are stored:
//   F32    float32, by fused multiply-adds; panels [K][16]
//   Bf16   bfloat16, by AMX tiles; panels [K/2][16][2], the pairs that a tile multiplies
//   Split  a float32 as the sum of two bfloat16, hi + lo, in two planes; W X is taken as
//          hi hi + hi lo + lo hi, which leaves out 2^-16 of a term and less
// Weights lie row-major as they were loaded, in any of three types. They are packed in blocks of 32
// rows: once for all products of a checkpoint, or into a core's own cache while they are used.
#pragma once

#include "cpu/types.h"
#include "cpu/vec.h"

namespace pythia_fast::cpu::PF_ISA {

constexpr int block_rows = 32;           // rows of W, two tiles
constexpr int block_tokens = 2 * lanes;  // two panels
constexpr int block_size = block_rows * block_tokens;

constexpr std::int64_t padded(std::int64_t k) { return (k + 31) / 32 * 32; }

struct F32 {
  using Element = float;
  static constexpr int planes = 1;
  static constexpr int block_k = 256;  // 32 rows of W take 32 KB: two thirds of a core's L1

  static PF_INLINE void put_pair(float* panel, std::int64_t, std::int64_t row, Vec a, Vec b) {
    store(panel + row * lanes, a);
    store(panel + (row + 1) * lanes, b);
  }
};

#if defined(PF_TILES)

PF_INLINE __m512i pairs_of(__m512bh halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(halves));
}

// Two vectors' bfloat16, a's in the lower half of each lane.
PF_INLINE __m512i bf16_pairs(Vec a, Vec b) { return pairs_of(_mm512_cvtne2ps_pbh(b.v, a.v)); }

// What is left of a pair's float32 after its bfloat16.
PF_INLINE Vec rest_of_low(Vec a, __m512i pairs) {
  return a - Vec{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
}
PF_INLINE Vec rest_of_high(Vec b, __m512i pairs) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  return b - Vec{_mm512_castsi512_ps(_mm512_and_si512(pairs, mask))};
}

struct Bf16 {
  using Element = std::uint16_t;
  static constexpr int planes = 1;
  static constexpr int block_k = 512;

  static PF_INLINE void put_pair(Element* panel, std::int64_t, std::int64_t row, Vec a, Vec b) {
    _mm512_storeu_si512(panel + row * lanes, bf16_pairs(a, b));
  }
};

struct Split {
  using Element = std::uint16_t;
  static constexpr int planes = 2;
  static constexpr int block_k = 256;

  static PF_INLINE void put_pair(Element* panel, std::int64_t plane, std::int64_t row, Vec a,
                                 Vec b) {
    const __m512i high = bf16_pairs(a, b);
    _mm512_storeu_si512(panel + row * lanes, high);
    const __m512i low = bf16_pairs(rest_of_low(a, high), rest_of_high(b, high));
    _mm512_storeu_si512(panel + plane + row * lanes, low);
  }
};

#endif

// ---- Packing weights
// -----------------------------------------------------------------------------

PF_INLINE Vec widen(const BFloat16* from) { return widen_bf16(&from->bits); }
PF_INLINE Vec widen(const Float16* from) { return widen_f16(&from->bits); }

// The first `count` of sixteen values, zeros after them.
template <typename Source>
PF_INLINE Vec widen_some(const Source* from, std::int64_t count) {
  if (count >= lanes) return widen(from);
  Source some[lanes] = {};
  for (std::int64_t i = 0; i < count; ++i) some[i] = from[i];
  return widen(some);
}

// 32 rows of W, columns [begin, end), into the form that `multiply` reads; `row(i)` says where row
// i of the block begins, null for a row of zeros. The columns are padded with zeros to a multiple
// of 32; `end - begin` may be less only at the end of a row.
template <typename Source, typename Row>
PF_INLINE void pack_block(F32, Row row, std::int64_t begin, std::int64_t end, float* to) {
  for (std::int64_t k = begin; k < begin + padded(end - begin); k += lanes) {
    for (int half = 0; half < 2; ++half) {
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) {
        const Source* from = row(half * lanes + i);
        tile[i] = from == nullptr || k >= end ? set1(0) : widen_some(from + k, end - k);
      }
      transpose(tile);
      for (int i = 0; i < lanes; ++i) {
        store(to + (k - begin + i) * block_rows + half * lanes, tile[i]);
      }
    }
  }
}

#if defined(PF_TILES)

template <typename Source>
constexpr bool is_bfloat16 = false;
template <>
constexpr bool is_bfloat16<BFloat16> = true;

template <typename Source, typename Row>
PF_INLINE void pack_block(Bf16, Row row, std::int64_t begin, std::int64_t end, std::uint16_t* to) {
  const std::int64_t steps = padded(end - begin) / 32;
  for (int i = 0; i < block_rows; ++i) {
    const Source* from = row(i);
    std::uint16_t* at = to + i * 32;
    for (std::int64_t step = 0; step < steps; ++step, at += block_rows * 32) {
      const std::int64_t k = begin + step * 32;
      if (from == nullptr) {
        _mm512_storeu_si512(at, _mm512_setzero_si512());
      } else if constexpr (is_bfloat16<Source>) {
        const std::int64_t left = end - k;
        const __mmask32 some = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
        _mm512_storeu_si512(at, _mm512_maskz_loadu_epi16(some, from + k));
      } else {
        const Vec low = widen_some(from + k, end - k);
        const Vec high = end - k > lanes ? widen_some(from + k + lanes, end - k - lanes) : set1(0);
        _mm512_storeu_si512(at, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
      }
    }
  }
}

template <typename Source, typename Row>
PF_INLINE void pack_block(Split, Row row, std::int64_t begin, std::int64_t end, std::uint16_t* to) {
  const std::int64_t steps = padded(end - begin) / 32;
  const auto widened = [](__m256i half) {
    return Vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  };
  for (int i = 0; i < block_rows; ++i) {
    const Source* from = row(i);
    std::uint16_t* at = to + i * 32;
    for (std::int64_t step = 0; step < steps; ++step, at += 2 * block_rows * 32) {
      __m512i hi = _mm512_setzero_si512(), lo = hi;
      if (from != nullptr) {
        const std::int64_t k = begin + step * 32;
        const Vec low = widen_some(from + k, end - k);
        const Vec high = end - k > lanes ? widen_some(from + k + lanes, end - k - lanes) : set1(0);
        hi = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v));
        const Vec rest_low = low - widened(_mm512_castsi512_si256(hi));
        const Vec rest_high = high - widened(_mm512_extracti64x4_epi64(hi, 1));
        lo = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(rest_high.v, rest_low.v));
      }
      _mm512_storeu_si512(at, hi);
      _mm512_storeu_si512(at + block_rows * 32, lo);
    }
  }
}

#endif

}  // namespace pythia_fast::cpu::PF_ISA
