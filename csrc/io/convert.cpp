// The same conversions twice: portable C++, and AVX2 with F16C. Which one runs is decided at run
// time; the file is compiled for the plain instruction set otherwise. Everything but float64 goes
// through float32, which holds every float16 and bfloat16 exactly.
#include "io/convert.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "io/errors.h"

namespace pythia_fast {
namespace {

#define PF_INLINE __attribute__((always_inline)) inline

// ---- The formats
// ---------------------------------------------------------------------------------

struct F16 {
  using Bits = std::uint16_t;
  static constexpr Bits exponent = 0x7c00;
};
struct BF16 {
  using Bits = std::uint16_t;
  static constexpr Bits exponent = 0x7f80;
};
struct F32 {
  using Bits = std::uint32_t;
  static constexpr Bits exponent = 0x7f800000;
};
struct F64 {
  using Bits = std::uint64_t;
  static constexpr Bits exponent = 0x7ff0000000000000;
};

// ---- One value, portably
// -------------------------------------------------------------------------

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

// ---- Whole arrays
// --------------------------------------------------------------------------------

template <typename From, typename To>
std::size_t convert_portable(const std::byte* source, std::byte* destination, std::size_t count) {
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

#if defined(__x86_64__)

// ---- AVX2 with F16C: sixteen values at a time
// -----------------------------------------------------
//
// Results are streamed past the caches: an arena is far larger than they are, and a store that need
// not fetch its line first makes float16 to float32 almost twice as fast (measured, 1 core of a
// Sapphire Rapids, 166 MB: 35 ms instead of 63 ms). AVX-512 brought nothing more.

#define PF_AVX2 __attribute__((target("avx2,f16c,popcnt")))

// Sixteen values as float32, or as they lie where nothing is converted.
struct Floats {
  __m256 low;
  __m256 high;
};

PF_AVX2 PF_INLINE __m128i load(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

PF_AVX2 PF_INLINE __m256 widen8(F16, const std::uint16_t* from) {
  return _mm256_cvtph_ps(load(from));
}

PF_AVX2 PF_INLINE __m256 widen8(BF16, const std::uint16_t* from) {
  const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load(from)), 16);
  const __m256 values = _mm256_castsi256_ps(bits);
  const __m256 nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
  const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000));
  return _mm256_or_ps(values, _mm256_and_ps(nan, quiet));
}

PF_AVX2 PF_INLINE __m256 widen8(F32, const std::uint32_t* from) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(from));
}

template <typename From>
PF_AVX2 PF_INLINE Floats widen16(From, const typename From::Bits* from) {
  return {widen8(From{}, from), widen8(From{}, from + 8)};
}

// The upper half of each float, rounded, in the lower half of a 32-bit lane.
PF_AVX2 PF_INLINE __m256i round_to_bf16(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  // Found by its bits: clang 14 takes a comparison of widened float16 apart, value by value.
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}

PF_AVX2 PF_INLINE __m256i narrow16(F16, Floats values) {
  constexpr int rounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm256_set_m128i(_mm256_cvtps_ph(values.high, rounding),
                          _mm256_cvtps_ph(values.low, rounding));
}

PF_AVX2 PF_INLINE __m256i narrow16(BF16, Floats values) {
  const __m256i packed = _mm256_packus_epi32(round_to_bf16(values.low), round_to_bf16(values.high));
  return _mm256_permute4x64_epi64(packed, 0xd8);  // packing interleaves the 128-bit halves
}

// How many 16-bit or 32-bit lanes have all bits of `exponent` set. Almost always none.
template <typename Bits>
PF_AVX2 PF_INLINE std::size_t count_bad(__m256i bits, Bits exponent) {
  __m256i bad;
  if constexpr (sizeof(Bits) == 2) {
    const __m256i mask = _mm256_set1_epi16(static_cast<std::int16_t>(exponent));
    bad = _mm256_cmpeq_epi16(_mm256_and_si256(bits, mask), mask);
  } else {
    const __m256i mask = _mm256_set1_epi32(static_cast<std::int32_t>(exponent));
    bad = _mm256_cmpeq_epi32(_mm256_and_si256(bits, mask), mask);
  }
  const auto lanes = static_cast<std::uint32_t>(_mm256_movemask_epi8(bad));
  return static_cast<std::size_t>(std::popcount(lanes)) / sizeof(Bits);
}

// Writes 32 bytes, past the caches if `to` is `aligned` to as many.
template <typename Format>
PF_AVX2 PF_INLINE std::size_t put(Format, void* to, __m256i bits, bool aligned) {
  if (aligned) {
    _mm256_stream_si256(static_cast<__m256i*>(to), bits);
  } else {
    _mm256_storeu_si256(static_cast<__m256i*>(to), bits);
  }
  return count_bad(bits, Format::exponent);
}

template <typename From, typename To>
PF_AVX2 PF_INLINE std::size_t convert16(const typename From::Bits* from, typename To::Bits* to,
                                        bool aligned) {
  if constexpr (std::is_same_v<From, To> && sizeof(typename To::Bits) == 2) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return put(To{}, to, bits, aligned);
  } else if constexpr (std::is_same_v<To, F32>) {
    const Floats values = widen16(From{}, from);
    return put(To{}, to, _mm256_castps_si256(values.low), aligned) +
           put(To{}, to + 8, _mm256_castps_si256(values.high), aligned);
  } else {
    return put(To{}, to, narrow16(To{}, widen16(From{}, from)), aligned);
  }
}

template <typename From, typename To>
PF_AVX2 std::size_t convert_avx2(const std::byte* source, std::byte* destination,
                                 std::size_t count) {
  const auto* from = reinterpret_cast<const typename From::Bits*>(source);
  auto* to = reinterpret_cast<typename To::Bits*>(destination);
  std::size_t found = 0;
  const auto some = [&](std::size_t n) PF_AVX2 {  // fewer than sixteen
    std::array<typename From::Bits, 16> rest{};
    std::array<typename To::Bits, 16> done{};
    std::memcpy(rest.data(), from, n * sizeof(rest[0]));
    found += convert16<From, To>(rest.data(), done.data(), false);
    std::memcpy(to, done.data(), n * sizeof(done[0]));
    from += n, to += n, count -= n;
  };
  const std::size_t unaligned = (0 - reinterpret_cast<std::uintptr_t>(to)) % 32 / sizeof(*to);
  if (unaligned != 0 && count >= unaligned) some(unaligned);
  for (; count >= 16; from += 16, to += 16, count -= 16) {
    found += convert16<From, To>(from, to, true);
  }
  if (count != 0) some(count);
  return found;
}

#endif

// ---- Choosing
// ------------------------------------------------------------------------------------

template <typename From, typename To>
Convert choose([[maybe_unused]] Level level) {
#if defined(__x86_64__)
  // float64 is met in nobody's checkpoints: one version is enough.
  if constexpr (!std::is_same_v<From, F64> && !std::is_same_v<To, F64>) {
    if (level == Level::avx2) return convert_avx2<From, To>;
  }
#endif
  return convert_portable<From, To>;
}

template <typename From>
Convert choose(FloatType destination, Level level) {
  switch (destination) {
    case FloatType::f16:
      return choose<From, F16>(level);
    case FloatType::bf16:
      return choose<From, BF16>(level);
    case FloatType::f32:
      return choose<From, F32>(level);
    case FloatType::f64:
      return choose<From, F64>(level);
  }
  __builtin_unreachable();
}

}  // namespace

FloatType float_type(std::string_view name) {
  if (name == "F16") return FloatType::f16;
  if (name == "BF16") return FloatType::bf16;
  if (name == "F32") return FloatType::f32;
  if (name == "F64") return FloatType::f64;
  throw ArgumentError("dtype must be one of F16, BF16, F32 and F64, got '" + std::string(name) +
                      "'");
}

std::size_t item_size(FloatType type) {
  constexpr std::array<std::size_t, float_types> sizes{2, 2, 4, 8};
  return sizes[static_cast<std::size_t>(type)];
}

bool supported(Level level) {
  if (level == Level::portable) return true;
#if defined(__x86_64__)
  // clang 14 does not know "f16c" by name. Whether the system saves the wide registers is part of
  // the answer about avx2.
  unsigned int a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  __builtin_cpu_init();
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
#else
  return false;
#endif
}

void finish_stores() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

Level best_level() { return supported(Level::avx2) ? Level::avx2 : Level::portable; }

Convert converter(FloatType source, FloatType destination, Level level) {
  switch (source) {
    case FloatType::f16:
      return choose<F16>(destination, level);
    case FloatType::bf16:
      return choose<BF16>(destination, level);
    case FloatType::f32:
      return choose<F32>(destination, level);
    case FloatType::f64:
      return choose<F64>(destination, level);
  }
  __builtin_unreachable();
}

}  // namespace pythia_fast
