// The MLP's first product, its bias and GELU, written as the operand of the second product; and the
// block's last product, added to the residual stream.
#pragma once

#include "cpu/product.h"

namespace pythia_fast::cpu::PF_ISA {

template <typename M>
struct MlpEpilogue {
  const MlpWork& work;

  PF_INLINE void operator()(const Block& block, int part) const {
    const std::int64_t size = padded(work.out.rows) * lanes;
    auto* out = static_cast<typename M::Element*>(work.out.data);
    each_row<2>(block, part, work.weight.rows,
                [&](std::int64_t panel, std::int64_t row, const float* sums)
                    __attribute__((always_inline)) {
                      M::put_pair(out + panel * size, work.out.panels * size, work.out_row + row,
                                  value(sums, row), value(sums + lanes, row + 1));
                    });
  }

  PF_INLINE Vec value(const float* sums, std::int64_t row) const {
    const Vec x = load(sums) + set1(work.bias[row]);
    return work.gelu == Gelu::erf ? gelu_erf(x) : gelu_tanh(x);
  }
};

template <typename M>
void mlp(const MlpWork& work, void* scratch) {
  MlpEpilogue<M> epilogue{work};
  product_of<M>(work.weight, same_row, work.range, work.x, scratch, epilogue);
}

struct ResidualEpilogue {
  const ResidualWork& work;

  PF_INLINE void operator()(const Block& block, int part) const {
    each_row(block, part, work.weight.rows,
             [&](std::int64_t panel, std::int64_t row, const float* sums)
                 __attribute__((always_inline)) {
                   float* x = work.x + (panel * work.weight.rows + row) * lanes;
                   // The branches first: their sum is small and rounds finely.
                   const Vec branches = load(sums) + set1(work.bias[row]);
                   store(x, load(x) + branches);
                 });
  }
};

template <typename M>
void residual(const ResidualWork& work, void* scratch) {
  ResidualEpilogue epilogue{work};
  product_of<M>(work.weight, same_row, work.range, work.a, scratch, epilogue);
}

}  // namespace pythia_fast::cpu::PF_ISA
