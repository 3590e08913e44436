// Numbers of one floating-point format into another, rounding to nearest, ties to even.
#pragma once

#include <cstddef>
#include <string_view>

#include "isa.h"

namespace pythia_fast {

enum class FloatType { f16, bf16, f32, f64 };
inline constexpr std::size_t float_types = 4;

FloatType float_type(std::string_view name);  // "F16" …; ArgumentError for any other
std::size_t item_size(FloatType type);

// Converts `count` values and returns how many of the results are NaN or infinite. `source` and
// `destination` are aligned to their types and do not overlap. `ahead` is as long as `source`: its
// lines are prefetched on the way, never read, so that it may lie anywhere.
// Another thread may look at the results after `finish_stores` by this one.
using Convert = std::size_t (*)(const std::byte* source, std::byte* destination, std::size_t count,
                                const std::byte* ahead);

// Orders streamed stores, which come late, before whatever this thread does next.
void finish_stores();

Convert converter(FloatType source, FloatType destination, Isa isa);

}  // namespace pythia_fast
