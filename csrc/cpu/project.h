// A product as it is, float32 panels: what decoding projects a step's tokens into, and logits.
#pragma once

#include "cpu/mlp.h"

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

template <typename M, typename Source>
void project_of(const ProjectWork& work, void* scratch) {
  ProjectEpilogue epilogue{work};
  product<M, Source>(rows_of<Source>(work.weight), work.weight.columns, work.range, work.x,
                     product_scratch<M>(scratch), epilogue);
}

PF_BY_STORED_TYPE(project, ProjectWork)

}  // namespace pythia_fast::cpu::PF_ISA
