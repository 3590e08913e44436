// A column of an arithmetic, K values in a row with its planes apart: packed blocks of weights
// times it, and its way into such a block.
#pragma once

#include "cpu/heads.h"

namespace pythia_fast::cpu::PF_ISA {

PF_INLINE void put_column(F32, float* to, std::int64_t, Vec a, Vec b) {
  store(to, a);
  store(to + lanes, b);
}

// c[32] = 32 packed rows of W by one column, `begin` false: is added to.
PF_INLINE void multiply_column(F32, const float* w, const float* x, std::int64_t,
                               std::int64_t k_padded, bool begin, float* c) {
  Vec sums[4] = {set1(0), set1(0), set1(0), set1(0)};  // even and odd k, so that additions overlap
  for (std::int64_t k = 0; k < k_padded; k += 2) {
    for (int odd = 0; odd < 2; ++odd) {
      const Vec factor = set1(x[k + odd]);
      const float* row = w + (k + odd) * block_rows;
      for (int half = 0; half < 2; ++half) {
        Vec& sum = sums[2 * odd + half];
        sum = fma(factor, load(row + half * lanes), sum);
      }
    }
  }
  for (int half = 0; half < 2; ++half) {
    Vec sum = sums[half] + sums[2 + half];
    if (!begin) sum = load(c + half * lanes) + sum;
    store(c + half * lanes, sum);
  }
}

// Key or value number `slot` of a block of 32; `row` holds 32 features.
PF_INLINE void append_key(F32, float* block, std::int64_t feature, int slot, const float* row) {
  for (int i = 0; i < block_rows; ++i) block[(feature + i) * block_rows + slot] = row[i];
}

PF_INLINE void append_value(F32, float* block, int slot, const float* row) {
  put_column(F32{}, block + slot * block_rows, 0, load(row), load(row + lanes));
}

#if defined(PF_TILES)

PF_INLINE __m512i bf16_row(Vec a, Vec b) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v));
}

PF_INLINE void put_column(Bf16, std::uint16_t* to, std::int64_t, Vec a, Vec b) {
  _mm512_storeu_si512(to, bf16_row(a, b));
}

PF_INLINE void put_column(Split, std::uint16_t* to, std::int64_t plane, Vec a, Vec b) {
  const auto rest = [](Vec x, __m256i high) {
    return x - Vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))};
  };
  const __m512i high = bf16_row(a, b);
  _mm512_storeu_si512(to, high);
  _mm512_storeu_si512(to + plane, bf16_row(rest(a, _mm512_castsi512_si256(high)),
                                           rest(b, _mm512_extracti64x4_epi64(high, 1))));
}

// Sums in tiles 0 to 3 and X in 6 and 7 are one column wide: sixteen rows of 4 bytes.
constexpr int column_bytes = 4;
alignas(64) constexpr TileConfig column_config{.row_bytes = {column_bytes, column_bytes,
                                                             column_bytes, column_bytes, 64, 64,
                                                             column_bytes, column_bytes}};

class ColumnTiles {
 public:
  ColumnTiles() { _tile_loadconfig(&column_config); }
  ~ColumnTiles() { _tile_release(); }
  ColumnTiles(const ColumnTiles&) = delete;
  ColumnTiles& operator=(const ColumnTiles&) = delete;
};

PF_INLINE void begin_column(bool begin, const float* c) {
  if (begin) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_loadd(0, c, column_bytes);
    _tile_loadd(1, c + lanes, column_bytes);
  }
}

PF_INLINE void end_column(float* c) {
  _tile_stored(0, c, column_bytes);
  _tile_stored(1, c + lanes, column_bytes);
}

PF_INLINE void multiply_column(Bf16, const std::uint16_t* w, const std::uint16_t* x, std::int64_t,
                               std::int64_t k_padded, bool begin, float* c) {
  begin_column(begin, c);
  for (std::int64_t k = 0; k < k_padded; k += 32, w += 2 * tile_elements) {
    _tile_loadd(6, x + k, column_bytes);
    _tile_loadd(4, w, tile_bytes);
    _tile_loadd(5, w + tile_elements, tile_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
  }
  end_column(c);
}

PF_INLINE void multiply_column(Split, const std::uint16_t* w, const std::uint16_t* x,
                               std::int64_t plane, std::int64_t k_padded, bool begin, float* c) {
  begin_column(begin, c);
  for (std::int64_t k = 0; k < k_padded; k += 32, w += 4 * tile_elements) {
    _tile_loadd(4, w, tile_bytes);
    _tile_loadd(5, w + tile_elements, tile_bytes);
    _tile_loadd(6, x + k, column_bytes);
    _tile_loadd(7, x + k + plane, column_bytes);
    _tile_dpbf16ps(0, 4, 7);  // hi lo
    _tile_dpbf16ps(1, 5, 7);
    _tile_dpbf16ps(0, 4, 6);  // hi hi
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(4, w + 2 * tile_elements, tile_bytes);
    _tile_loadd(5, w + 3 * tile_elements, tile_bytes);
    _tile_dpbf16ps(0, 4, 6);  // lo hi
    _tile_dpbf16ps(1, 5, 6);
  }
  end_column(c);
}

// A row of a tile of keys is a column of 32 features.
template <typename M>
PF_INLINE void append_key(M, std::uint16_t* block, std::int64_t feature, int slot,
                          const float* row) {
  std::uint16_t* tiles = block + feature / 32 * 2 * tile_elements * M::planes;
  put_column(M{}, tiles + slot * 32, 2 * tile_elements, load(row), load(row + lanes));
}

template <typename M>
PF_INLINE void append_value(M, std::uint16_t* block, int slot, const float* row) {
  std::uint16_t column[2 * block_rows];
  put_column(M{}, column, block_rows, load(row), load(row + lanes));
  for (int plane = 0; plane < M::planes; ++plane) {
    std::uint16_t* to = block + plane * 2 * tile_elements + slot;
    for (int i = 0; i < block_rows; ++i) to[i * 32] = column[plane * block_rows + i];
  }
}

#else

using ColumnTiles = Tiles;

#endif

}  // namespace pythia_fast::cpu::PF_ISA
