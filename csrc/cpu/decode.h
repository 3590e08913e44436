// One new token of each sequence against the keys and values of those before it.
//
// A panel's lanes are sequences, all at the same position, until their queries and keys have
// turned. From there on a sequence is on its own: its key and value join the packed blocks that
// attention has left (see heads.h), and those are multiplied by one column, the query or the
// probabilities. Reading them from memory, once, is most of the work.
#pragma once

#include "cpu/column.h"

namespace pythia_fast::cpu::PF_ISA {

constexpr int widest_head = 256;
constexpr std::int64_t decode_keys = 1024;  // whose scores are in L1 at a time
constexpr std::int64_t asked_blocks = 4;    // of 32 keys

// Over the lanes, in one fixed order.
template <typename Join>
PF_INLINE float over_lanes(Vec x, Join join) {
  float values[lanes];
  store(values, x);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) values[i] = join(values[i], values[i + width]);
  }
  return values[0];
}

template <typename M>
class Decode {
  using Element = typename M::Element;

 public:
  struct Scratch {
    // Queries, keys and values: of one kind with sequences as lanes, and all, a sequence to a row.
    alignas(64) float rows[widest_head][lanes];
    alignas(64) float turned[3][lanes][widest_head];
    alignas(64) Element queries[lanes][widest_head * M::planes];
    alignas(64) float scores[decode_keys];
    alignas(64) Element shares[decode_keys * M::planes];
    alignas(64) float sums[lanes][widest_head];
  };

  Decode(const DecodeWork& work, Scratch& scratch)
      : work_(work), places_(work.cache), scratch_(scratch) {
    const std::int64_t left = work.cache.sequences - work.panel * lanes;
    count_ = left < lanes ? static_cast<int>(left) : lanes;
  }

  void run() {
    for (int kind = 0; kind < 3; ++kind) {
      take(kind);
      turn_round(kind);
    }
    // What a sequence adds is written some time before it is read, and asked for before that.
    ask(0);
    ask(1);
    keep(0);
    for (int lane = 0; lane < count_; ++lane) {
      ask(lane + 2);
      keep(lane + 1);
      attend(lane);
    }
    put();
  }

 private:
  std::int64_t index(int lane) const {
    return (work_.panel * lanes + lane) * work_.cache.heads + work_.head;
  }

  // The projection's rows of a kind in the order of heads.h: turned, scaled, filled up with zeros.
  void take(int kind) {
    const Heads& cache = work_.cache;
    const float* from =
        work_.qkv + ((work_.panel * cache.heads + work_.head) * 3 + kind) * cache.features * lanes;
    float (*to)[lanes] = scratch_.rows;
    const Vec scale = set1(kind == 0 ? query_scale(cache.features) : 1.0F);
    const std::int64_t half = kind == 2 ? 0 : cache.rotary / 2;
    for (std::int64_t i = 0; i < half; ++i) {
      const std::int64_t at = i * work_.positions + work_.position;
      const Vec cosine = set1(work_.cosines[at]), sine = set1(work_.sines[at]);
      const Vec a = load(from + i * lanes), b = load(from + (i + half) * lanes);
      store(to[2 * i], fnma(b, sine, a * cosine) * scale);
      store(to[2 * i + 1], fma(a, sine, b * cosine) * scale);
    }
    for (std::int64_t i = 2 * half; i < places_.width; ++i) {
      store(to[i], i < cache.features ? load(from + i * lanes) * scale : set1(0));
    }
  }

  void turn_round(int kind) {
    for (std::int64_t feature = 0; feature < places_.width; feature += lanes) {
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) tile[i] = load(scratch_.rows[feature + i]);
      transpose(tile);
      for (int i = 0; i < lanes; ++i) store(scratch_.turned[kind][i] + feature, tile[i]);
    }
  }

  // The keys and values of a sequence, or their beginning if there are many: further on, the
  // processor sees where reading goes.
  void ask(int lane) const {
    if (lane >= count_) return;
    const std::int64_t so_far = work_.position / block_rows + 1;
    const std::int64_t blocks = so_far < asked_blocks ? so_far : asked_blocks;
    const auto* keys = static_cast<const Element*>(work_.cache.keys);
    const auto* values = static_cast<const Element*>(work_.cache.values);
    const auto each_line = [](const Element* from, std::int64_t elements) {
      constexpr auto line = static_cast<std::int64_t>(64 / sizeof(Element));
      for (std::int64_t i = 0; i < elements; i += line) prefetch(from + i);
    };
    each_line(keys + places_.key_block(index(lane), 0),
              blocks * block_rows * places_.width * M::planes);
    for (std::int64_t feature = 0; feature < places_.width; feature += block_rows) {
      each_line(values + places_.value_block(index(lane), feature, 0),
                blocks * block_rows * 32 * M::planes);
    }
  }

  // The query as a column, key and value among the others.
  void keep(int lane) {
    if (lane >= count_) return;
    const std::int64_t block = work_.position / block_rows;
    const int slot = static_cast<int>(work_.position % block_rows);
    auto* keys = static_cast<Element*>(work_.cache.keys) + places_.key_block(index(lane), block);
    for (std::int64_t feature = 0; feature < places_.width; feature += block_rows) {
      const float* query = scratch_.turned[0][lane] + feature;
      put_column(M{}, scratch_.queries[lane] + feature, widest_head, load(query),
                 load(query + lanes));
      append_key(M{}, keys, feature, slot, scratch_.turned[1][lane] + feature);
      auto* values = static_cast<Element*>(work_.cache.values) +
                     places_.value_block(index(lane), feature, block);
      append_value(M{}, values, slot, scratch_.turned[2][lane] + feature);
    }
  }

  // Softmax over the keys so far, some at a time (arXiv:1805.02867), and the values' sum by it.
  void attend(int lane) {
    const auto* keys = static_cast<const Element*>(work_.cache.keys);
    const auto* values = static_cast<const Element*>(work_.cache.values);
    constexpr std::int64_t chunk = decode_keys / block_rows;
    const std::int64_t blocks = work_.position / block_rows + 1;
    float* sums = scratch_.sums[lane];
    float peak = -__builtin_inff(), total = 0;
    for (std::int64_t first = 0; first < blocks; first += chunk) {
      const std::int64_t some = blocks - first < chunk ? blocks - first : chunk;
      for (std::int64_t i = 0; i < some; ++i) {
        multiply_column(M{}, keys + places_.key_block(index(lane), first + i),
                        scratch_.queries[lane], widest_head, places_.width, true,
                        scratch_.scores + i * block_rows);
      }
      const float before = peak;
      const float part = weigh(work_.position + 1 - first * block_rows, some * block_rows, peak);
      if (first > 0) {
        const Vec factor = exp2<5>(set1(before - peak));
        float shrink[lanes];
        store(shrink, factor);
        total *= shrink[0];
        for (std::int64_t i = 0; i < places_.width; i += lanes) {
          store(sums + i, load(sums + i) * factor);
        }
      }
      total += part;
      for (std::int64_t feature = 0; feature < places_.width; feature += block_rows) {
        multiply_column(M{}, values + places_.value_block(index(lane), feature, first),
                        scratch_.shares, decode_keys, some * block_rows, first == 0,
                        sums + feature);
      }
    }
    const Vec share = set1(1.0F / total);
    for (std::int64_t i = 0; i < places_.width; i += lanes) store(sums + i, load(sums + i) * share);
  }

  // The scores of `keys` keys into shares, not yet divided by their sum, which is returned; zeros
  // follow up to `padded_keys`.
  float weigh(std::int64_t keys, std::int64_t padded_keys, float& peak) {
    const float* scores = scratch_.scores;
    const auto seen = [&](std::int64_t i, Vec value, float unseen) __attribute__((always_inline)) {
      const std::int64_t some = keys - i < 0 ? 0 : keys - i;
      return some >= lanes ? value : select(mask_of((1U << some) - 1), value, set1(unseen));
    };
    Vec highest = set1(peak);
    for (std::int64_t i = 0; i < padded_keys; i += lanes) {
      highest = max(highest, seen(i, load(scores + i), -__builtin_inff()));
    }
    peak = over_lanes(highest, [](float a, float b) { return a > b ? a : b; });
    Vec total[2] = {set1(0), set1(0)};
    for (std::int64_t i = 0; i < padded_keys; i += 2 * lanes) {
      const Vec a = seen(i, exp2<softmax_degree<M>>(load(scores + i) - set1(peak)), 0);
      const Vec b =
          seen(i + lanes, exp2<softmax_degree<M>>(load(scores + i + lanes) - set1(peak)), 0);
      total[0] = total[0] + a;
      total[1] = total[1] + b;
      put_column(M{}, scratch_.shares + i, decode_keys, a, b);
    }
    return over_lanes(total[0] + total[1], [](float a, float b) { return a + b; });
  }

  void put() const {
    const std::int64_t size = padded(work_.out.rows) * lanes;
    auto* to = static_cast<Element*>(work_.out.data) + work_.panel * size;
    const std::int64_t features = work_.cache.features, row = work_.head * features;
    for (std::int64_t feature = 0; feature < features; feature += lanes) {
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) {
        tile[i] = i < count_ ? load(scratch_.sums[i] + feature) : set1(0);
      }
      transpose(tile);
      for (int i = 0; i < lanes && feature + i < features; i += 2) {
        M::put_pair(to, work_.out.panels * size, row + feature + i, tile[i], tile[i + 1]);
      }
    }
  }

  const DecodeWork& work_;
  HeadPlaces<M> places_;
  Scratch& scratch_;
  int count_;  // sequences of the panel
};

template <typename M>
void decode(const DecodeWork& work, void* scratch) {
  const ColumnTiles tiles;
  Decode<M>(work, *static_cast<typename Decode<M>::Scratch*>(scratch)).run();
}

}  // namespace pythia_fast::cpu::PF_ISA
