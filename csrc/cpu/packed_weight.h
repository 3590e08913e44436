// A matrix in the form in which the products of one arithmetic read it, in memory of its own, which
// lasts while it is packed anew for each checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"

namespace pythia_fast::cpu {

// Features fill whole tiles. The kernels have their own: see vec.h on what they must not share.
inline std::int64_t padded(std::int64_t size) { return (size + 31) / 32 * 32; }

class PackedWeight {
 public:
  // For a matrix of this shape; its values are zeros until it is packed. std::bad_alloc if there is
  // no room.
  PackedWeight(const Kernels& kernels, std::int64_t rows, std::int64_t columns,
               const RowOrder& order);
  ~PackedWeight();
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;

  // Takes the place of all values; `matrix` is row-major and of the shape given.
  void pack(const Weight& matrix, std::size_t threads);

  Weight weight() const { return {memory_, StoredType::packed, rows_, columns_, 0}; }
  const Kernels& kernels() const { return kernels_; }
  const RowOrder& order() const { return order_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::size_t bytes() const { return bytes_; }

 private:
  const Kernels& kernels_;
  std::int64_t rows_, columns_;
  RowOrder order_;
  std::int64_t product_rows_, row_bytes_;
  std::size_t bytes_;
  void* memory_;
};

}  // namespace pythia_fast::cpu
