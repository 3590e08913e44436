// Numbers of one floating-point format into another, rounding to nearest, ties to even.
#pragma once

#include <cstddef>
#include <string_view>

namespace pythia_fast {

enum class FloatType { f16, bf16, f32, f64 };
inline constexpr std::size_t float_types = 4;

FloatType float_type(std::string_view name);  // "F16" …; ArgumentError for any other
std::size_t item_size(FloatType type);

// Converts `count` values and returns how many of the results are NaN or infinite. `source` and
// `destination` are aligned to their types and do not overlap.
using Convert = std::size_t (*)(const std::byte* source, std::byte* destination, std::size_t count);

// Counts the NaN and infinite values among `count`.
using Scan = std::size_t (*)(const std::byte* values, std::size_t count);

// What the processor can do. All levels give the same bits.
enum class Level { portable, avx2, avx512 };
Level best_level();
bool supported(Level level);

Convert converter(FloatType source, FloatType destination, Level level);
Scan scanner(FloatType type, Level level);

}  // namespace pythia_fast
