// The last product and the cross-entropy in one: what softmax(W h) says of each target.
//
// A block of logits, 32 of the vocabulary by 32 tokens, lives for as long as it takes to fold it
// into each token's running maximum and sum (arXiv:1805.02867); logits never reach memory. Lanes
// are tokens, so the fold has no horizontal step. The runner-up and the arg max are looked at only
// in blocks that hold a logit above a token's second best so far, which become rare.
#pragma once

#include "cpu/kernels.h"
#include "cpu/product.h"

namespace pythia_fast::cpu::PF_ISA {

// Of sixteen tokens, after some rows of the vocabulary.
struct Running {
  float best[lanes];
  float sum[lanes];  // of exp(logit - best)
  float second[lanes];
  float index[lanes];  // of the best: a float holds every vocabulary's exactly, below 2^24
  float target[lanes];
};
static_assert(sizeof(Running) == running_floats * sizeof(float));

class CrossEntropy {
 public:
  // Rows from `vocabulary` on hold no logits.
  CrossEntropy(Running* running, const std::int32_t* targets, std::int64_t panel_begin,
               std::int64_t vocabulary, bool with_best)
      : running_(running),
        targets_(targets),
        panel_begin_(panel_begin),
        vocabulary_(vocabulary),
        with_best_(with_best) {}

  PF_INLINE void operator()(const Block& block, int part) {
    constexpr int parts = asides / 2, rows = block_rows / parts;
    const int panel = part / parts, step = part % parts;
    const float* sums = block.sums + panel * block_rows * lanes;
    Running& running = running_[block.panel + panel - panel_begin_];
    if (step == 0) begin(block, panel, sums, running);
    // A block's own sum first: small terms would be lost one by one in a large sum.
    Vec sum = step == 0 ? set1(0) : load(block_sum_);
    const Vec best = load(best_);
    for (int i = 0; i < rows; ++i) {
      const Vec logit = load(sums + (step * rows + i) * lanes);
      const Vec power = exp2<5>((logit - best) * set1(log2_e));
      if (step * rows + i < valid_) sum = sum + power;
    }
    store(block_sum_, sum);
    if (step == parts - 1) store(running.sum, load(running.sum) + sum);
  }

 private:
  void begin(const Block& block, int panel, const float* sums, Running& running) {
    const std::int64_t left = vocabulary_ - block.row;
    valid_ = left < block_rows ? static_cast<int>(left) : block_rows;
    const Vec lowest = set1(-__builtin_inff());
    Vec peaks[4] = {lowest, lowest, lowest, lowest};  // four, so that they overlap
    for (int i = 0; i < valid_; ++i) peaks[i % 4] = max(peaks[i % 4], load(sums + i * lanes));
    const Vec peak = max(max(peaks[0], peaks[1]), max(peaks[2], peaks[3]));
    const Vec best = load(running.best);
    if (with_best_ && any(greater(peak, load(running.second)))) find_best(block, sums, running);
    const Vec higher = max(best, peak);
    if (any(greater(higher, best))) {
      // The first block comes from a best of -inf and a sum of 0.
      const Vec sum = load(running.sum) * exp2<5>((best - higher) * set1(log2_e));
      store(running.sum, select(greater(higher, best), sum, load(running.sum)));
    }
    store(running.best, higher);
    // As long as all logits are -inf, their difference to the best would be NaN.
    store(best_, select(greater(higher, lowest), higher, set1(0)));
    find_targets(block, panel, sums, running);
  }

  void find_best(const Block& block, const float* sums, Running& running) {
    Vec best = load(running.best), second = load(running.second), index = load(running.index);
    for (int i = 0; i < valid_; ++i) {
      const Vec logit = load(sums + i * lanes);
      const Mask above = greater(logit, best);  // so the lowest index wins a tie
      second = max(second, min(best, logit));
      best = max(best, logit);
      index = select(above, set1(static_cast<float>(block.row + i)), index);
    }
    store(running.second, second);
    store(running.index, index);
  }

  void find_targets(const Block& block, int panel, const float* sums, Running& running) {
    const std::int32_t* targets = targets_ + (block.panel + panel) * lanes;
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t row = targets[lane] - block.row;
      if (row >= 0 && row < valid_) running.target[lane] = sums[row * lanes + lane];
    }
  }

  Running* running_;
  const std::int32_t* targets_;
  std::int64_t panel_begin_;
  std::int64_t vocabulary_;
  bool with_best_;
  int valid_ = 0;
  float best_[lanes] = {};
  float block_sum_[lanes] = {};
};

inline void begin_running(Running* running, std::int64_t panels) {
  const Vec lowest = set1(-__builtin_inff()), zero = set1(0);
  for (std::int64_t i = 0; i < panels; ++i) {
    store(running[i].best, lowest);
    store(running[i].sum, zero);
    store(running[i].second, lowest);
    store(running[i].index, zero);
    store(running[i].target, zero);
  }
}

// Folds the vocabulary's rows of the range into `running`, one entry per panel of the range.
template <typename M>
void cross_entropy(const CrossEntropyWork& work, void* scratch) {
  const Range& range = work.range;
  auto* running = reinterpret_cast<Running*>(work.running);
  begin_running(running, range.panel_end - range.panel_begin);
  CrossEntropy epilogue(running, work.targets, range.panel_begin, range.row_end, work.with_best);
  product_of<M>(work.weight, same_row, range, work.x, scratch, epilogue);
}

}  // namespace pythia_fast::cpu::PF_ISA
