// A product as it is, float32 panels: what decoding projects a step's tokens into, and logits.
#pragma once

#include "cpu/mlp.h"

namespace pythia_fast::cpu::PF_ISA {

struct ProjectEpilogue {
  const ProjectWork& work;

  PF_INLINE void operator()(const Block& block, int part) const {
    constexpr int parts = asides / 2, rows = block_rows / parts;
    const int panel = part / parts;
    const int begin = part % parts * rows;
    float* to = work.to + (block.panel + panel) * work.weight.rows * lanes;
    for (int i = begin; i < begin + rows; ++i) {
      const std::int64_t row = block.row + i;
      if (row >= work.weight.rows) return;
      const Vec bias = set1(work.bias == nullptr ? 0 : work.bias[row]);
      store(to + row * lanes, load(block.sums + (panel * block_rows + i) * lanes) + bias);
    }
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
