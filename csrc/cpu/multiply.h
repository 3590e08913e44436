// One block of a product: 32 packed rows of W by two panels of X, summed over K in a fixed order.
//
// The result is float32 [2 panels][32 rows][16 tokens], 8 KB at most away from the registers. While
// the tiles multiply, the vector units are free: `aside(i)`, i = 0 … 15, is called in between, and
// is meant for the sixteen parts of what is done with the block before this one.
#pragma once

#include "cpu/operand.h"

namespace pythia_fast::cpu::PF_ISA {

constexpr int asides = 16;

struct NoAside {
  PF_INLINE void operator()(int) const {}
};

// W X + `before`, or W X where that is null, into `c`; the two may be the same memory.
template <typename Aside>
PF_INLINE void multiply(F32, const float* w, const float* x0, const float* x1, std::int64_t,
                        std::int64_t k_padded, const float* before, float* c, Aside&& aside) {
  for (int i = 0; i < asides; ++i) aside(i);
#if defined(__AVX512F__)
  constexpr unsigned rows = 12, panels = 2;  // 24 sums, two loads and a broadcast in 32 registers
#elif defined(__AVX2__)
  constexpr unsigned rows = 6, panels = 1;  // 12 sums and a load's two halves in 16 registers
#else
  constexpr unsigned rows = 4, panels = 1;
#endif
  for (unsigned panel = 0; panel < 2; panel += panels) {
    const float* x[2] = {panel == 0 ? x0 : x1, x1};
    const auto some = [&]<unsigned count>(unsigned row) __attribute__((always_inline)) {
      float* to = c + (panel * block_rows + row) * lanes;
      Vec sum[panels][count];
      for (unsigned p = 0; p < panels; ++p) {
        for (unsigned r = 0; r < count; ++r) {
          sum[p][r] = set1(0);
        }
      }
      const float* weight = w + row;
      for (std::int64_t k = 0; k < k_padded; ++k) {
        Vec value[panels];
        for (unsigned p = 0; p < panels; ++p) value[p] = load(x[p] + k * lanes);
        for (unsigned r = 0; r < count; ++r) {
          const Vec factor = set1(weight[k * block_rows + r]);
          for (unsigned p = 0; p < panels; ++p) sum[p][r] = fma(factor, value[p], sum[p][r]);
        }
      }
      for (unsigned p = 0; p < panels; ++p) {
        for (unsigned r = 0; r < count; ++r) {
          float* at = to + (p * block_rows + r) * lanes;
          const Vec so_far = before == nullptr ? set1(0) : load(before + (at - c));
          store(at, so_far + sum[p][r]);
        }
      }
    };
    unsigned row = 0;
    for (; row + rows <= block_rows; row += rows) some.template operator()<rows>(row);
    if constexpr (block_rows % rows != 0) some.template operator()<block_rows % rows>(row);
  }
}

#if defined(PF_TILES)

struct TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// In memory for good: GCC thinks that the instruction which loads it reads 8 bytes, and does not
// write the rest of a local one.
alignas(64) constexpr TileConfig tile_config{};

// The tile registers are sixteen rows of 64 bytes each for as long as this lives.
class Tiles {
 public:
  Tiles() { _tile_loadconfig(&tile_config); }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

constexpr int tile_bytes = 64;      // of a row
constexpr int tile_elements = 512;  // bfloat16
constexpr int tile_sums = 256;      // float32

// Sums in tiles 0 to 3, W in 4 and 5, X in 6 and 7. The packed W is what L1 is for; X passes
// through it once, so its loads say that they stream (measured: 0.8 of the time).
PF_INLINE void begin_sums(const float* before) {
  if (before == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, before, tile_bytes);
    _tile_loadd(1, before + 2 * tile_sums, tile_bytes);
    _tile_loadd(2, before + tile_sums, tile_bytes);
    _tile_loadd(3, before + 3 * tile_sums, tile_bytes);
  }
}

PF_INLINE void end_sums(float* c) {
  _tile_stored(0, c, tile_bytes);
  _tile_stored(1, c + 2 * tile_sums, tile_bytes);
  _tile_stored(2, c + tile_sums, tile_bytes);
  _tile_stored(3, c + 3 * tile_sums, tile_bytes);
}

PF_INLINE void four_products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

template <typename Aside>
PF_INLINE void multiply(Bf16, const std::uint16_t* w, const std::uint16_t* x0,
                        const std::uint16_t* x1, std::int64_t, std::int64_t k_padded,
                        const float* before, float* c, Aside&& aside) {
  const int steps = static_cast<int>(k_padded / 32);
  begin_sums(before);
  int done = 0;
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(4, w + step * 2 * tile_elements, tile_bytes);
    _tile_stream_loadd(6, x0 + step * tile_elements, tile_bytes);
    _tile_stream_loadd(7, x1 + step * tile_elements, tile_bytes);
    _tile_loadd(5, w + (step * 2 + 1) * tile_elements, tile_bytes);
    four_products();
    for (; done * steps < (step + 1) * asides; ++done) aside(done);
  }
  end_sums(c);
}

template <typename Aside>
PF_INLINE void multiply(Split, const std::uint16_t* w, const std::uint16_t* x0,
                        const std::uint16_t* x1, std::int64_t plane, std::int64_t k_padded,
                        const float* before, float* c, Aside&& aside) {
  const int steps = static_cast<int>(k_padded / 32);
  begin_sums(before);
  int done = 0;
  for (int step = 0; step < steps; ++step) {
    const std::uint16_t* at = w + step * 4 * tile_elements;
    const std::uint16_t* high[2] = {x0 + step * tile_elements, x1 + step * tile_elements};
    _tile_loadd(4, at, tile_bytes);
    _tile_stream_loadd(6, high[0] + plane, tile_bytes);
    _tile_stream_loadd(7, high[1] + plane, tile_bytes);
    _tile_loadd(5, at + tile_elements, tile_bytes);
    four_products();  // hi lo
    _tile_stream_loadd(6, high[0], tile_bytes);
    _tile_stream_loadd(7, high[1], tile_bytes);
    four_products();  // hi hi
    _tile_loadd(4, at + 2 * tile_elements, tile_bytes);
    _tile_loadd(5, at + 3 * tile_elements, tile_bytes);
    four_products();  // lo hi
    for (; done * steps < (step + 1) * asides; ++done) aside(done);
  }
  end_sums(c);
}

#else

// Instruction sets without tiles have nothing to set up.
struct Tiles {
  Tiles() {}
  ~Tiles() {}
};

#endif

}  // namespace pythia_fast::cpu::PF_ISA
