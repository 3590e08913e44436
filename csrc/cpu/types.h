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

enum class StoredType { f32, bf16, f16 };

// A row-major matrix of weights.
struct Weight {
  const void* data;
  StoredType type;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;  // from row to row, in elements
};

// Activations that a product reads: `panels` panels of `rows` features (padded to a multiple of 32)
// in as many planes as the arithmetic has.
struct OperandView {
  void* data;
  std::int64_t panels;
  std::int64_t rows;
};

}  // namespace pythia_fast::cpu
