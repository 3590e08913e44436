// What the kernels of every instruction set share: stored types and plain arguments.
#pragma once

#include <cstdint>

namespace pythia_fast::cpu {

struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

enum class StoredType { f32, bf16, f16, packed };

// A matrix of weights, row-major, or packed as products read it.
struct Weight {
  const void* data;
  StoredType type;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;  // from row to row, in elements; of no meaning where it is packed
};

// The order of a product's rows. With `features`, those of W are [heads][3][features], and are
// taken as attention wants them: see heads.h. Without, they are taken as they are.
struct RowOrder {
  std::int64_t features = 0;
  std::int64_t rotary = 0;  // how many of a head's features turn

  bool operator==(const RowOrder&) const = default;
};

// Activations that a product reads: `panels` panels of `rows` features (padded to a multiple of 32)
// in as many planes as the arithmetic has.
struct OperandView {
  void* data;
  std::int64_t panels;
  std::int64_t rows;
};

}  // namespace pythia_fast::cpu
