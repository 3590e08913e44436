// The loop of every product: blocks of 32 packed rows of W, each by the pairs of panels of a group
// of tokens. The packed rows stay in the core's L1 and the group's activations in its L2, so that W
// is read from memory once per group. K is cut where 32 packed rows would not fit: then a few
// hundred rows are taken through one cut after the other, and their sums wait in between. W has
// been packed before, or is row-major and packed on the way.
//
// What becomes of a block is the epilogue's business: `epilogue(block, i)`, i = 0 … 15, is called
// while the next block is multiplied. Sums run over K in one fixed order whatever else is computed,
// so a token's results are the same in any batch and with any number of threads.
#pragma once

#include "cpu/kernels.h"
#include "cpu/multiply.h"

namespace pythia_fast::cpu::PF_ISA {

struct Block {
  std::int64_t row;    // of the product, a multiple of 32
  std::int64_t panel;  // the first of two
  const float* sums;   // [2 panels][32 rows][16 tokens]
};

// One of the sixteen parts of what is done with a block: `call(panel, row, sums)` for each row of
// the part, or each second one, as far as the product has `rows`.
template <int step = 1, typename Call>
PF_INLINE void each_row(const Block& block, int part, std::int64_t rows, Call&& call) {
  constexpr int parts = asides / 2, part_rows = block_rows / parts;
  const int panel = part / parts, begin = part % parts * part_rows;
  for (int i = begin; i < begin + part_rows; i += step) {
    if (block.row + i >= rows) return;
    call(block.panel + panel, block.row + i, block.sums + (panel * block_rows + i) * lanes);
  }
}

// A thread's own memory.
template <typename M>
struct ProductScratch {
  alignas(64) typename M::Element weights[block_rows * M::block_k * M::planes];
  alignas(64) float sums[2][block_size];
  alignas(64) float waiting[waiting_floats];
};

// How many columns of W are packed at a time, so that all cuts of K are of a length.
template <typename M>
constexpr std::int64_t cut_of(std::int64_t k) {
  const std::int64_t cuts = (k + M::block_k - 1) / M::block_k;
  return padded((k + cuts - 1) / cuts);
}

// Asks memory for what is multiplied next while the present rows are: a line or so at a time, since
// each that is under way takes one of the few buffers through which activations come from L2.
class AskingLines {
 public:
  AskingLines(const void* begin, std::int64_t bytes, std::int64_t times)
      : at_(static_cast<const char*>(begin)), left_((bytes + line - 1) / line) {
    each_ = (left_ + times - 1) / times;
  }

  PF_INLINE void some() {
    for (std::int64_t i = 0; i < each_ && left_ > 0; ++i, --left_, at_ += line) prefetch(at_);
  }

 private:
  static constexpr std::int64_t line = 64;
  const char* at_;
  std::int64_t left_, each_;
};

// The same for columns of 32 rows, which are too many streams for the processor to foresee.
template <typename Source, typename SourceRow>
class AskingRows {
 public:
  AskingRows(SourceRow row, std::int64_t begin, std::int64_t end, std::int64_t times) : row_(row) {
    bytes_ = (end - begin) * static_cast<std::int64_t>(sizeof(Source));
    begin_ = begin;
    const std::int64_t lines = block_rows * ((bytes_ + line - 1) / line);
    each_ = (lines + times - 1) / times;
  }

  PF_INLINE void some() {
    for (std::int64_t i = 0; i < each_ && at_ < block_rows; ++i) {
      const Source* from = row_(at_);
      if (from != nullptr) prefetch(reinterpret_cast<const char*>(from + begin_) + offset_);
      offset_ += line;
      if (offset_ >= bytes_) {
        offset_ = 0;
        ++at_;
      }
    }
  }

 private:
  static constexpr std::int64_t line = 64;
  SourceRow row_;
  std::int64_t begin_, bytes_, each_;
  std::int64_t offset_ = 0;
  int at_ = 0;
};

template <typename M>
ProductScratch<M>& product_scratch(void* scratch) {
  return *static_cast<ProductScratch<M>*>(scratch);
}

// Where a product has its packed rows from. `block(row, begin, end)` are 32 of them, columns
// [begin, end); `ahead(row, begin, end, times)` asks for those that are wanted next.
//
// Row-major: packed here. `source_row(row)` is where row `row` of the product begins in W, null for
// a row of zeros.
template <typename M, typename Source, typename SourceRow>
class RowMajor {
 public:
  RowMajor(SourceRow source_row, ProductScratch<M>& scratch)
      : source_row_(source_row), packed_(scratch.weights) {}

  const typename M::Element* block(std::int64_t row, std::int64_t begin, std::int64_t end) {
    const auto rows = [&](int i) { return source_row_(row + i); };
    pack_block<Source>(M{}, rows, begin, end, packed_);
    return packed_;
  }

  auto ahead(std::int64_t row, std::int64_t begin, std::int64_t end, std::int64_t times) const {
    const auto rows = [this, row](int i) { return source_row_(row + i); };
    return AskingRows<Source, decltype(rows)>(rows, begin, end, times);
  }

 private:
  SourceRow source_row_;
  typename M::Element* packed_;
};

// As pack.h leaves them: blocks of 32 rows by all columns, cuts of which lie in one piece.
template <typename M>
class Packed {
 public:
  explicit Packed(const Weight& weight)
      : data_(static_cast<const typename M::Element*>(weight.data)),
        rows_(weight.rows),
        block_(block_rows * padded(weight.columns) * M::planes) {}

  const typename M::Element* block(std::int64_t row, std::int64_t begin, std::int64_t) const {
    return data_ + row / block_rows * block_ + begin * block_rows * M::planes;
  }

  auto ahead(std::int64_t row, std::int64_t begin, std::int64_t end, std::int64_t times) const {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(typename M::Element));
    if (row >= rows_) return AskingLines(data_, 0, times);
    return AskingLines(block(row, begin, end), padded(end - begin) * block_rows * M::planes * bytes,
                       times);
  }

 private:
  const typename M::Element* data_;
  std::int64_t rows_, block_;
};

// W X over `range`; K is W's and X's.
template <typename M, typename Rows, typename Epilogue>
void product(Rows rows, std::int64_t k, const Range& range, const OperandView& x,
             ProductScratch<M>& scratch, Epilogue& epilogue) {
  using Element = typename M::Element;
  const Tiles tiles;
  const std::int64_t panel_size = padded(x.rows) * lanes;
  const std::int64_t plane = x.panels * panel_size;
  const std::int64_t cut = cut_of<M>(k);
  const std::int64_t pairs = (range.panel_end - range.panel_begin) / 2;
  const auto* data = static_cast<const Element*>(x.data);
  const auto least = [](std::int64_t a, std::int64_t b) { return a < b ? a : b; };

  Block ready{0, 0, nullptr};
  int turn = 0;
  const auto aside = [&](int i) __attribute__((always_inline)) { epilogue(ready, i); };
  for (std::int64_t first = range.row_begin; first < range.row_end; first += rows_at_once) {
    const std::int64_t behind = least(first + rows_at_once, range.row_end);
    for (std::int64_t begin = 0; begin < k; begin += cut) {
      const std::int64_t end = least(begin + cut, k);
      const std::int64_t columns = padded(end - begin);
      for (std::int64_t row = first; row < behind; row += block_rows) {
        const Element* packed = rows.block(row, begin, end);
        const bool same_cut = row + block_rows < behind;
        const std::int64_t next_begin = same_cut ? begin : end == k ? 0 : end;
        const std::int64_t next_row = same_cut ? row + block_rows : end == k ? behind : first;
        auto asking = rows.ahead(next_row, next_begin, least(next_begin + cut, k), pairs * asides);
        float* waiting = scratch.waiting + (row - first) / block_rows * pairs * block_size;
        for (std::int64_t pair = 0; pair < pairs; ++pair, waiting += block_size) {
          const std::int64_t panel = range.panel_begin + 2 * pair;
          const Element* x0 = data + panel * panel_size + begin * lanes;
          const float* before = begin == 0 ? nullptr : waiting;
          float* sums = end == k ? scratch.sums[turn] : waiting;
          if (end == k && ready.sums != nullptr) {
            multiply(M{}, packed, x0, x0 + panel_size, plane, columns, before, sums,
                     [&](int i) __attribute__((always_inline)) {
                       asking.some();
                       aside(i);
                     });
          } else {
            multiply(M{}, packed, x0, x0 + panel_size, plane, columns, before, sums,
                     [&](int) __attribute__((always_inline)) { asking.some(); });
          }
          if (end == k) {
            ready = {row, panel, sums};
            turn = 1 - turn;
          }
        }
      }
    }
  }
  if (ready.sums != nullptr) {
    for (int i = 0; i < asides; ++i) aside(i);
  }
}

// Defines `kernel<M>(work, scratch)`, which calls `kernel_of<M, Source>` for a row-major matrix's
// type.
#define PF_BY_STORED_TYPE(kernel, Work)                 \
  template <typename M>                                 \
  void kernel(const Work& work, void* scratch) {        \
    switch (work.weight.type) {                         \
      case StoredType::f32:                             \
        return kernel##_of<M, float>(work, scratch);    \
      case StoredType::bf16:                            \
        return kernel##_of<M, BFloat16>(work, scratch); \
      case StoredType::f16:                             \
        return kernel##_of<M, Float16>(work, scratch);  \
      case StoredType::packed:                          \
        __builtin_unreachable();                        \
    }                                                   \
  }

// A product with W as it is stored. Row `i` of the product is row `number(i)` of a row-major W, or
// zeros where that is -1.
template <typename M, typename Epilogue, typename RowNumber>
void product_of(const Weight& weight, RowNumber number, const Range& range, const OperandView& x,
                void* scratch, Epilogue& epilogue) {
  ProductScratch<M>& own = product_scratch<M>(scratch);
  const auto row_major = [&]<typename Source>(const Source* data) {
    const auto row = [&, data](std::int64_t i) -> const Source* {
      const std::int64_t source = i < range.row_end ? number(i) : -1;
      return source < 0 ? nullptr : data + source * weight.stride;
    };
    product<M>(RowMajor<M, Source, decltype(row)>(row, own), weight.columns, range, x, own,
               epilogue);
  };
  switch (weight.type) {
    case StoredType::f32:
      return row_major(static_cast<const float*>(weight.data));
    case StoredType::bf16:
      return row_major(static_cast<const BFloat16*>(weight.data));
    case StoredType::f16:
      return row_major(static_cast<const Float16*>(weight.data));
    case StoredType::packed:
      return product<M>(Packed<M>(weight), weight.columns, range, x, own, epilogue);
  }
}

// Rows as they are.
PF_INLINE std::int64_t same_row(std::int64_t row) { return row; }

}  // namespace pythia_fast::cpu::PF_ISA
