// The product that gives queries, keys and values, rotated and laid out as attention multiplies
// them.
//
// A block of 32 rows belongs to one head and to queries, keys or values: each head's features are
// padded to a multiple of 32 with rows of zeros. Rotary position embedding (arXiv:2104.09864) turns
// feature i against i + R/2; the rows of W are packed so that the two are neighbours. Queries and
// keys are then permuted alike, which their product does not notice.
#pragma once

#include "cpu/product.h"

namespace pythia_fast::cpu::PF_ISA {

// How an arithmetic stores keys and values: as the packed weights of the two products of attention.
// Keys: blocks of 32 keys (rows) by the padded features. Values: blocks of 32 features (rows) by
// the padded keys. `half` says which sixteen of the 32 keys a panel is.
PF_INLINE void put_keys(F32, float* block, std::int64_t feature, int half, const Vec rows[32]) {
  for (int i = 0; i < block_rows; ++i) {
    store(block + (feature + i) * block_rows + half * lanes, rows[i]);
  }
}

PF_INLINE void put_values(F32, float* block, int half, const Vec rows[32]) {
  for (int part = 0; part < 2; ++part) {
    Vec tile[lanes];
    for (int i = 0; i < lanes; ++i) tile[i] = rows[part * lanes + i];
    transpose(tile);
    for (int i = 0; i < lanes; ++i) {
      store(block + (half * lanes + i) * block_rows + part * lanes, tile[i]);
    }
  }
}

#if defined(PF_TILES)

PF_INLINE void put_key_tile(std::uint16_t* tile, const __m512i pairs[16]) {
  Vec rows[lanes];
  for (int i = 0; i < lanes; ++i) rows[i].v = _mm512_castsi512_ps(pairs[i]);
  transpose(rows);
  for (int i = 0; i < lanes; ++i) store(reinterpret_cast<float*>(tile + i * 32), rows[i]);
}

PF_INLINE void put_keys(Bf16, std::uint16_t* block, std::int64_t feature, int half,
                        const Vec rows[32]) {
  __m512i pairs[lanes];
  for (int i = 0; i < lanes; ++i) pairs[i] = bf16_pairs(rows[2 * i], rows[2 * i + 1]);
  put_key_tile(block + feature / 32 * 2 * tile_elements + half * tile_elements, pairs);
}

PF_INLINE void put_keys(Split, std::uint16_t* block, std::int64_t feature, int half,
                        const Vec rows[32]) {
  __m512i high[lanes], low[lanes];
  for (int i = 0; i < lanes; ++i) {
    high[i] = bf16_pairs(rows[2 * i], rows[2 * i + 1]);
    low[i] = bf16_pairs(rest_of_low(rows[2 * i], high[i]), rest_of_high(rows[2 * i + 1], high[i]));
  }
  std::uint16_t* tile = block + feature / 32 * 4 * tile_elements + half * tile_elements;
  put_key_tile(tile, high);
  put_key_tile(tile + 2 * tile_elements, low);
}

PF_INLINE void put_half_row(std::uint16_t* to, __m256bh values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(values));
}

PF_INLINE void put_values(Bf16, std::uint16_t* block, int half, const Vec rows[32]) {
  for (int i = 0; i < block_rows; ++i) {
    put_half_row(block + i * 32 + half * lanes, _mm512_cvtneps_pbh(rows[i].v));
  }
}

PF_INLINE void put_values(Split, std::uint16_t* block, int half, const Vec rows[32]) {
  for (int i = 0; i < block_rows; ++i) {
    const __m256bh high = _mm512_cvtneps_pbh(rows[i].v);
    const __m512i wide = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(high));
    const Vec rest = rest_of_low(rows[i], wide);
    std::uint16_t* to = block + i * 32 + half * lanes;
    put_half_row(to, high);
    put_half_row(to + 2 * tile_elements, _mm512_cvtneps_pbh(rest.v));
  }
}

#endif

// By which queries are scaled, so that softmax is a matter of powers of two.
PF_INLINE float query_scale(std::int64_t features) {
  return log2_e / __builtin_sqrtf(static_cast<float>(features));
}

// Where the parts of one sequence and head begin, in elements of M.
template <typename M>
struct HeadPlaces {
  std::int64_t width;  // features padded
  std::int64_t query_panels;
  std::int64_t blocks;  // of 32 keys: as many as there is room for
  std::int64_t query_plane;

  explicit HeadPlaces(const Heads& heads)
      : width(padded(heads.features)),
        query_panels((heads.panels + 1) / 2 * 2),
        blocks((heads.capacity + 1) / 2),
        query_plane(heads.sequences * heads.heads * query_panels * width * lanes) {}

  std::int64_t query(std::int64_t index, std::int64_t panel) const {
    return (index * query_panels + panel) * width * lanes;
  }
  std::int64_t key_block(std::int64_t index, std::int64_t block) const {
    return (index * blocks + block) * block_rows * width * M::planes;
  }
  std::int64_t value_block(std::int64_t index, std::int64_t feature, std::int64_t block) const {
    const std::int64_t row_block = (index * width + feature) / block_rows;
    return (row_block * blocks + block) * block_rows * 32 * M::planes;
  }
};

// The rows of the product by heads: [heads][3][features padded]. Of queries and keys, the features
// that turn together follow each other.
class HeadOrder {
 public:
  explicit HeadOrder(const RowOrder& order) : order_(order), width_(padded(order.features)) {}

  // Which row of W is row `row` of the product, or -1.
  std::int64_t source(std::int64_t row) const {
    const std::int64_t part = row / width_;
    std::int64_t feature = row % width_;
    if (part % 3 != 2 && feature < order_.rotary) {
      feature = feature / 2 + (feature % 2 == 0 ? 0 : order_.rotary / 2);
    }
    return feature < order_.features ? part * order_.features + feature : -1;
  }

 private:
  RowOrder order_;
  std::int64_t width_;
};

template <typename M>
class HeadsEpilogue {
 public:
  explicit HeadsEpilogue(const HeadsWork& work)
      : work_(work),
        places_(work.to),
        order_({work.to.features, work.to.rotary}),
        scale_(set1(query_scale(work.to.features))) {}

  std::int64_t source(std::int64_t row) const { return order_.source(row); }

  PF_INLINE void operator()(const Block& block, int part) {
    constexpr int parts = asides / 2, rows = block_rows / parts;
    const int panel = part / parts, begin = part % parts * rows;
    const std::int64_t kind = block.row / places_.width % 3;
    if (begin == 0) find(block, panel);
    const float* sums = block.sums + panel * block_rows * lanes;
    for (int i = begin; i < begin + rows; i += 2) {
      Vec a = load(sums + i * lanes), b = load(sums + (i + 1) * lanes);
      finish(block.row + i, kind, a, b);
      rows_[i] = a;
      rows_[i + 1] = b;
    }
    if (part % parts == parts - 1) put(kind);
  }

 private:
  using Element = typename M::Element;

  PF_INLINE void find(const Block& block, int panel) {
    const std::int64_t number = block.panel + panel;
    sequence_ = number / work_.to.panels;
    panel_ = number % work_.to.panels;
    index_ = sequence_ * work_.to.heads + block.row / (3 * places_.width);
    // A panel that makes their number even has no positions: it is turned by others.
    const bool is_ours = sequence_ < work_.to.sequences;
    position_ = panel_ * lanes + (is_ours ? sequence_ * work_.sequence_positions : 0);
    feature_ = block.row % places_.width;
  }

  PF_INLINE void finish(std::int64_t row, std::int64_t kind, Vec& a, Vec& b) const {
    const std::int64_t first = source(row), second = source(row + 1);
    if (first >= 0) a = a + set1(work_.bias[first]);
    if (second >= 0) b = b + set1(work_.bias[second]);
    const std::int64_t feature = row % places_.width;
    if (kind == 2) return;
    if (feature < work_.to.rotary) {
      const std::int64_t at = feature / 2 * work_.positions + position_;
      const Vec cosine = load(work_.cosines + at), sine = load(work_.sines + at);
      const Vec turned = fnma(b, sine, a * cosine);
      b = fma(a, sine, b * cosine);
      a = turned;
    }
    if (kind == 0) {
      a = a * scale_;
      b = b * scale_;
    }
  }

  PF_INLINE void put(std::int64_t kind) const {
    if (sequence_ >= work_.to.sequences) return;  // a panel that makes their number even
    const std::int64_t block = panel_ / 2;
    const int half = static_cast<int>(panel_ % 2);
    if (kind == 0) {
      auto* to = static_cast<Element*>(work_.to.queries) + places_.query(index_, panel_);
      for (int i = 0; i < block_rows; i += 2) {
        M::put_pair(to, places_.query_plane, feature_ + i, rows_[i], rows_[i + 1]);
      }
    } else if (kind == 1) {
      auto* to = static_cast<Element*>(work_.to.keys) + places_.key_block(index_, block);
      put_keys(M{}, to, feature_, half, rows_);
    } else {
      auto* to =
          static_cast<Element*>(work_.to.values) + places_.value_block(index_, feature_, block);
      put_values(M{}, to, half, rows_);
    }
  }

  const HeadsWork& work_;
  HeadPlaces<M> places_;
  HeadOrder order_;
  Vec scale_;
  std::int64_t sequence_ = 0, panel_ = 0, index_ = 0, feature_ = 0, position_ = 0;
  Vec rows_[block_rows];
};

template <typename M>
void heads(const HeadsWork& work, void* scratch) {
  HeadsEpilogue<M> epilogue(work);
  product_of<M>(
      work.weight, [&](std::int64_t row) { return epilogue.source(row); }, work.range, work.x,
      scratch, epilogue);
}

}  // namespace pythia_fast::cpu::PF_ISA
