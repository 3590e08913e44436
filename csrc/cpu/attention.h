// Causal attention of 32 queries at a time, with online softmax (arXiv:2112.05682,
// arXiv:2205.14135).
//
// Scores are computed as keys x queries, so that lanes are queries: maximum and sum run down the
// rows, and two rows of probabilities are a pair that the product with the values reads as it is.
// Keys are taken some blocks of 32 at a time, whose scores fit into L1.
//
// In a tree (prefixes that several continuations share, laid out depth first) a key is seen by the
// tokens of its subtree only, which follow it up to its end. Blocks that none of the 32 queries
// sees are left out.
#pragma once

#include "cpu/heads.h"

namespace pythia_fast::cpu::PF_ISA {

constexpr int chunk_blocks = 8;  // of 32 keys: 32 KB of scores

template <typename M>
constexpr int softmax_degree = 5;
#if defined(PF_TILES)
template <>
constexpr int softmax_degree<Bf16> = 3;  // probabilities are rounded to bfloat16 next
#endif

template <typename M>
class Attention {
  using Element = typename M::Element;

 public:
  struct Scratch {
    alignas(64) float scores[chunk_blocks * block_size];
    alignas(64) Element shares[2 * chunk_blocks * 32 * lanes * M::planes];
    alignas(64) float sums[8 * block_size];  // of 256 features at most
  };

  Attention(const AttentionWork& work, Scratch& scratch)
      : work_(work),
        places_(work.from),
        index_(work.sequence * work.from.heads + work.head),
        scratch_(scratch) {}

  // Queries of one pair of panels against all keys up to their own that one of them sees. The first
  // of these blocks has key 0, which all see: from there on every query has a finite peak.
  void pair(std::int64_t pair) {
    const auto* queries = static_cast<const Element*>(work_.from.queries);
    const Element* q0 = queries + places_.query(index_, 2 * pair);
    const Element* q1 = queries + places_.query(index_, 2 * pair + 1);
    for (int panel = 0; panel < 2; ++panel) {
      peak_[panel] = set1(-__builtin_inff());
      sum_[panel] = set1(0);
    }
    bool is_first = true;
    for (std::int64_t next = 0; next <= pair; is_first = false) {
      int blocks = 0;
      for (; next <= pair && blocks < chunk_blocks; ++next) {
        if (is_seen(next, pair)) chosen_[blocks++] = next;
      }
      for (int i = 0; i < blocks; ++i) {
        const auto* keys =
            static_cast<const Element*>(work_.from.keys) + places_.key_block(index_, chosen_[i]);
        multiply(M{}, keys, q0, q1, places_.query_plane, places_.width, nullptr, scores(i),
                 NoAside{});
        if (work_.ends != nullptr) hide_branches(chosen_[i], pair, scores(i));
      }
      if (next == pair + 1) hide_future(scores(blocks - 1));  // its queries see their own block
      for (int panel = 0; panel < 2; ++panel) weigh(panel, blocks, is_first);
      add_values(blocks, is_first);
    }
    for (int panel = 0; panel < 2; ++panel) put(2 * pair + panel, panel);
  }

 private:
  float* scores(int block) const { return scratch_.scores + block * block_size; }

  // Key r of the last block may be seen by query l of its panels if r ≤ l.
  static void hide_future(float* block) {
    const Vec lowest = set1(-__builtin_inff());
    for (int panel = 0; panel < 2; ++panel) {
      for (int row = 0; row < block_rows; ++row) {
        const int hidden = row - panel * lanes;  // queries before this one do not see the key
        if (hidden <= 0) continue;
        float* at = block + (panel * block_rows + row) * lanes;
        const std::uint32_t future = hidden >= lanes ? 0xffffU : (1U << hidden) - 1;
        store(at, select(mask_of(future), lowest, load(at)));
      }
    }
  }

  // The ends of a block's keys, which are fewer in the last block of an odd number of panels.
  const std::int32_t* ends_of(std::int64_t block, int& keys) const {
    const std::int64_t left = work_.from.panels * lanes - block * block_rows;
    keys = left < block_rows ? static_cast<int>(left) : block_rows;
    return work_.ends + work_.sequence * work_.from.panels * lanes + block * block_rows;
  }

  bool is_seen(std::int64_t block, std::int64_t pair) const {
    if (work_.ends == nullptr || block == pair) return true;
    int keys = 0;
    const std::int32_t* ends = ends_of(block, keys);
    std::int32_t last = 0;
    for (int key = 0; key < keys; ++key) last = ends[key] > last ? ends[key] : last;
    return last > pair * block_rows;
  }

  // A key of the block is hidden from queries that its end lies before.
  void hide_branches(std::int64_t block, std::int64_t pair, float* scores) const {
    const Vec lowest = set1(-__builtin_inff());
    int keys = 0;
    const std::int32_t* ends = ends_of(block, keys);
    for (int panel = 0; panel < 2; ++panel) {
      const std::int64_t query = pair * block_rows + panel * lanes;
      for (int row = 0; row < keys; ++row) {
        const std::int64_t seeing = ends[row] - query;  // so many of the queries see the key
        if (seeing >= lanes) continue;
        float* at = scores + (panel * block_rows + row) * lanes;
        const std::uint32_t beyond = seeing <= 0 ? 0xffffU : 0xffffU << seeing & 0xffffU;
        store(at, select(mask_of(beyond), lowest, load(at)));
      }
    }
  }

  // Scores into shares, not yet divided by their sum.
  PF_INLINE void weigh(int panel, int blocks, bool first) {
    Vec peaks[4] = {peak_[panel], peak_[panel], peak_[panel], peak_[panel]};  // they overlap
    for (int block = 0; block < blocks; ++block) {
      const float* from = scores(block) + panel * block_rows * lanes;
      for (int row = 0; row < block_rows; row += 4) {
        for (int i = 0; i < 4; ++i) peaks[i] = max(peaks[i], load(from + (row + i) * lanes));
      }
    }
    const Vec peak = max(max(peaks[0], peaks[1]), max(peaks[2], peaks[3]));
    const Mask higher = greater(peak, peak_[panel]);
    if (!first && any(higher)) {
      // Exactly 1 where a query's peak stays: else its bits would depend on other queries.
      const Vec factor = select(higher, exp2<5>(peak_[panel] - peak), set1(1));
      sum_[panel] = sum_[panel] * factor;
      for (std::int64_t feature = 0; feature < places_.width; ++feature) {
        float* at = sums(feature, panel);
        store(at, load(at) * factor);
      }
    }
    peak_[panel] = peak;
    Vec total[2] = {sum_[panel], set1(0)};
    Element* to = scratch_.shares + panel * panel_size;
    for (int block = 0; block < blocks; ++block) {
      const float* from = scores(block) + panel * block_rows * lanes;
      for (int row = 0; row < block_rows; row += 2) {
        const Vec a = exp2<softmax_degree<M>>(load(from + row * lanes) - peak);
        const Vec b = exp2<softmax_degree<M>>(load(from + (row + 1) * lanes) - peak);
        total[0] = total[0] + a;
        total[1] = total[1] + b;
        M::put_pair(to, 2 * panel_size, block * block_rows + row, a, b);
      }
    }
    sum_[panel] = total[0] + total[1];
  }

  // By the values of the chosen blocks: in one product for each run of neighbours.
  PF_INLINE void add_values(int blocks, bool is_first) {
    const auto* values = static_cast<const Element*>(work_.from.values);
    for (int begin = 0, end = 0; begin < blocks; begin = end) {
      while (end < blocks && chosen_[end] == chosen_[begin] + (end - begin)) ++end;
      const Element* shares = scratch_.shares + begin * block_rows * lanes;
      for (std::int64_t feature = 0; feature < places_.width; feature += block_rows) {
        float* to = scratch_.sums + feature / block_rows * block_size;
        multiply(M{}, values + places_.value_block(index_, feature, chosen_[begin]), shares,
                 shares + panel_size, 2 * panel_size, (end - begin) * block_rows,
                 is_first && begin == 0 ? nullptr : to, to, NoAside{});
      }
    }
  }

  float* sums(std::int64_t feature, int panel) const {
    return scratch_.sums + feature / block_rows * block_size +
           (panel * block_rows + feature % block_rows) * lanes;
  }

  void put(std::int64_t panel_of_sequence, int panel) const {
    if (panel_of_sequence >= work_.from.panels) return;
    const std::int64_t size = padded(work_.out.rows) * lanes;
    const std::int64_t number = work_.sequence * work_.from.panels + panel_of_sequence;
    auto* to = static_cast<Element*>(work_.out.data) + number * size;
    const Vec share = set1(1) / sum_[panel];
    const std::int64_t row = work_.head * work_.from.features;
    for (std::int64_t feature = 0; feature < work_.from.features; feature += 2) {
      M::put_pair(to, work_.out.panels * size, row + feature, load(sums(feature, panel)) * share,
                  load(sums(feature + 1, panel)) * share);
    }
  }

  static constexpr std::int64_t panel_size = chunk_blocks * 32 * lanes;
  const AttentionWork& work_;
  HeadPlaces<M> places_;
  std::int64_t index_;
  Scratch& scratch_;
  Vec peak_[2];
  Vec sum_[2];
  std::int64_t chosen_[chunk_blocks];  // blocks of keys
};

template <typename M>
void attention(const AttentionWork& work, void* scratch) {
  const Tiles tiles;
  Attention<M> attention(work, *static_cast<typename Attention<M>::Scratch*>(scratch));
  for (std::int64_t pair = work.pair_begin; pair < work.pair_end; ++pair) attention.pair(pair);
}

}  // namespace pythia_fast::cpu::PF_ISA
