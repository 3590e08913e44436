// LayerNorm of each token, read once, written as the operand of one product or of two.
//
// The parallel residual takes two LayerNorms of the same x: mean and deviation are computed once.
#pragma once

#include "cpu/kernels.h"
#include "cpu/operand.h"

namespace pythia_fast::cpu::PF_ISA {

PF_INLINE Vec total(const Vec (&sums)[4]) { return (sums[0] + sums[1]) + (sums[2] + sums[3]); }

template <typename M>
void norm(const NormWork& work, void*) {
  const std::int64_t features = work.out[0].rows;
  const Vec count = set1(static_cast<float>(features));
  for (std::int64_t panel = work.panel_begin; panel < work.panel_end; ++panel) {
    const float* x = work.x + panel * features * lanes;
    Vec sums[4] = {set1(0), set1(0), set1(0), set1(0)};  // four, so that additions overlap
    for (std::int64_t i = 0; i < features; ++i) sums[i % 4] = sums[i % 4] + load(x + i * lanes);
    const Vec mean = total(sums) / count;
    // What rounding took from the mean is the mean of what is centred. It counts for a token whose
    // features lie close together and far from 0 (Chan, Golub and LeVeque 1983, equation 1.7).
    Vec squares[4] = {set1(0), set1(0), set1(0), set1(0)};
    for (Vec& sum : sums) sum = set1(0);
    for (std::int64_t i = 0; i < features; ++i) {
      const Vec centred = load(x + i * lanes) - mean;
      sums[i % 4] = sums[i % 4] + centred;
      squares[i % 4] = fma(centred, centred, squares[i % 4]);
    }
    const Vec rest = total(sums) / count;
    const Vec variance = max(set1(0), fnma(rest, rest, total(squares) / count));  // or NaN
    const Vec scale = set1(1) / sqrt(variance + set1(work.epsilon));

    for (std::int64_t output = 0; output < work.outputs; ++output) {
      const Affine& affine = work.affine[output];
      const OperandView& out = work.out[output];
      const std::int64_t size = padded(features) * lanes;
      auto* to = static_cast<typename M::Element*>(out.data) + panel * size;
      const auto value = [&](std::int64_t i) {
        if (i >= features) return set1(0);
        const Vec normal = ((load(x + i * lanes) - mean) - rest) * scale;
        return fma(normal, set1(affine.weight[i]), set1(affine.bias[i]));
      };
      for (std::int64_t i = 0; i < padded(features); i += 2) {
        M::put_pair(to, out.panels * size, i, value(i), value(i + 1));
      }
    }
  }
}

}  // namespace pythia_fast::cpu::PF_ISA
