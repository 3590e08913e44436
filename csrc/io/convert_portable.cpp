// Any processor: one value at a time. Everything but float64 goes through float32, which holds
// every float16 and bfloat16 exactly.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "io/float_formats.h"

namespace pythia_fast {
namespace {

PF_INLINE float widen(F16, std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000U} << 16;
  const std::uint32_t magnitude = half & 0x7fffU;
  if (magnitude > 0x7c00) return std::bit_cast<float>(sign | 0x7fc00000U | (magnitude << 13));
  if (magnitude == 0x7c00) return std::bit_cast<float>(sign | 0x7f800000U);
  if (magnitude >= 0x0400)
    return std::bit_cast<float>(sign | ((magnitude << 13) + ((127U - 15U) << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

PF_INLINE float widen(BF16, std::uint16_t bits) {
  const std::uint32_t quiet = (bits & 0x7fffU) > 0x7f80U ? 0x00400000U : 0U;
  return std::bit_cast<float>((std::uint32_t{bits} << 16) | quiet);
}

PF_INLINE float widen(F32, std::uint32_t bits) { return std::bit_cast<float>(bits); }

PF_INLINE std::uint16_t narrow(F16, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t result;
  if (magnitude > 0x7f800000U) {
    result = 0x7e00U | ((magnitude >> 13) & 0x3ffU);  // NaN, quiet, its payload cut
  } else if (magnitude >= 0x47800000U) {
    result = 0x7c00U;  // 2^16 and more; [65520, 2^16) rounds up to infinity below
  } else if (magnitude >= 0x38800000U) {
    result = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
  } else {
    // Below 2^-14: adding 0.5 puts the subnormal's unit, 2^-24, at the lowest bit of a float.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5F;
    result = std::bit_cast<std::uint32_t>(aligned) - std::bit_cast<std::uint32_t>(0.5F);
  }
  return static_cast<std::uint16_t>(sign | result);
}

PF_INLINE std::uint16_t narrow(BF16, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40U : rounded);
}

PF_INLINE std::uint32_t narrow(F32, float value) { return std::bit_cast<std::uint32_t>(value); }

PF_INLINE std::uint64_t narrow(F64, float value) {
  return std::bit_cast<std::uint64_t>(static_cast<double>(value));
}

// The float32 next to `value` whose last bit is odd, unless `value` is exact: rounding this once
// more, to a shorter format, gives what rounding `value` itself would have given.
PF_INLINE float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  const double back = static_cast<double>(nearest);
  if (back == value || value != value || (bits & 1U) != 0) return nearest;
  const bool away = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  return std::bit_cast<float>(away ? bits - 1 : bits + 1);
}

template <typename Format>
PF_INLINE typename Format::Bits narrow_double(Format, std::uint64_t bits) {
  const double value = std::bit_cast<double>(bits);
  if constexpr (std::is_same_v<Format, F64>) {
    return bits;
  } else if constexpr (std::is_same_v<Format, F32>) {
    return narrow(F32{}, static_cast<float>(value));
  } else {
    return narrow(Format{}, round_to_odd(value));
  }
}

template <typename From, typename To>
PF_INLINE typename To::Bits convert_one(typename From::Bits bits) {
  if constexpr (std::is_same_v<From, F64>) {
    return narrow_double(To{}, bits);
  } else if constexpr (std::is_same_v<From, To>) {
    return bits;
  } else {
    return narrow(To{}, widen(From{}, bits));
  }
}

template <typename From, typename To>
std::size_t convert_all(const std::byte* source, std::byte* destination, std::size_t count,
                        const std::byte*) {
  const auto* from = reinterpret_cast<const typename From::Bits*>(source);
  auto* to = reinterpret_cast<typename To::Bits*>(destination);
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto bits = convert_one<From, To>(from[i]);
    to[i] = bits;
    found += static_cast<std::size_t>((bits & To::exponent) == To::exponent);
  }
  return found;
}

}  // namespace

Convert convert_portable(FloatType source, FloatType destination) {
  return with_format(source, [=](auto from) {
    return with_format(
        destination, [](auto to) -> Convert { return convert_all<decltype(from), decltype(to)>; });
  });
}

}  // namespace pythia_fast
