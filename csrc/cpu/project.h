// A product as it is, float32 panels: what decoding projects a step's tokens into, and logits.
#pragma once

#include "cpu/product.h"

namespace pythia_fast::cpu::PF_ISA {

struct ProjectEpilogue {
  const ProjectWork& work;

  PF_INLINE void operator()(const Block& block, int part) const {
    each_row(block, part, work.weight.rows,
             [&](std::int64_t panel, std::int64_t row, const float* sums)
                 __attribute__((always_inline)) {
                   const Vec bias = set1(work.bias == nullptr ? 0 : work.bias[row]);
                   store(work.to + (panel * work.weight.rows + row) * lanes, load(sums) + bias);
                 });
  }
};

template <typename M>
void project(const ProjectWork& work, void* scratch) {
  ProjectEpilogue epilogue{work};
  product_of<M>(work.weight, same_row, work.range, work.x, scratch, epilogue);
}

}  // namespace pythia_fast::cpu::PF_ISA
