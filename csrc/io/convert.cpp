// Three levels of the same conversions: portable C++, AVX2 with F16C, AVX-512. Which one runs is
// decided at run time; the file is compiled for the plain instruction set otherwise. Everything but
// float64 goes through float32, which holds every float16 and bfloat16 exactly.
#include "io/convert.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#if defined(__x86_64__)
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
  } else {
    return narrow(To{}, widen(From{}, bits));
  }
}

// ---- Whole arrays
// --------------------------------------------------------------------------------

// Counted in blocks whose count fits the values' own type, so that compilers vectorise the loop.
template <typename Format>
PF_INLINE std::size_t scan_body(const std::byte* values, std::size_t count) {
  using Bits = typename Format::Bits;
  constexpr std::size_t block = 4096;
  const auto* bits = reinterpret_cast<const Bits*>(values);
  std::size_t found = 0;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = count - begin < block ? count - begin : block;
    Bits here = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const bool bad = (bits[begin + i] & Format::exponent) == Format::exponent;
      here = static_cast<Bits>(here + static_cast<Bits>(bad));
    }
    found += here;
  }
  return found;
}

template <typename Format>
std::size_t scan_portable(const std::byte* values, std::size_t count) {
  return scan_body<Format>(values, count);
}

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

// ---- AVX2 with F16C: eight values at a time
// ------------------------------------------------------

#define PF_AVX2 __attribute__((target("avx2,f16c")))
#define PF_AVX512 __attribute__((target("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")))

template <typename Format>
PF_AVX2 std::size_t scan_avx2(const std::byte* values, std::size_t count) {
  return scan_body<Format>(values, count);
}

template <typename Format>
PF_AVX512 std::size_t scan_avx512(const std::byte* values, std::size_t count) {
  return scan_body<Format>(values, count);
}

PF_AVX2 PF_INLINE __m256 load8(F16, const std::uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

PF_AVX2 PF_INLINE __m256 load8(BF16, const std::uint16_t* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
  const __m256 values = _mm256_castsi256_ps(bits);
  const __m256 nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
  const __m256i quiet = _mm256_and_si256(_mm256_castps_si256(nan), _mm256_set1_epi32(0x00400000));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, quiet));
}

PF_AVX2 PF_INLINE __m256 load8(F32, const std::uint32_t* from) {
  return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// How many of eight 16-bit results have all exponent bits set.
PF_AVX2 PF_INLINE std::size_t count8(__m128i bits, std::uint16_t exponent) {
  const __m128i mask = _mm_set1_epi16(static_cast<std::int16_t>(exponent));
  const __m128i bad = _mm_cmpeq_epi16(_mm_and_si128(bits, mask), mask);
  return static_cast<std::size_t>(
             std::popcount(static_cast<std::uint32_t>(_mm_movemask_epi8(bad)))) /
         2;
}

PF_AVX2 PF_INLINE std::size_t store8(F16, std::uint16_t* to, __m256 values) {
  const __m128i bits = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bits);
  return count8(bits, F16::exponent);
}

PF_AVX2 PF_INLINE std::size_t store8(BF16, std::uint16_t* to, __m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(chosen, chosen), 0x08);
  const __m128i halves = _mm256_castsi256_si128(packed);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
  return count8(halves, BF16::exponent);
}

PF_AVX2 PF_INLINE std::size_t store8(F32, std::uint32_t* to, __m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  const __m256i mask = _mm256_set1_epi32(static_cast<std::int32_t>(F32::exponent));
  const __m256i bad = _mm256_cmpeq_epi32(_mm256_and_si256(bits, mask), mask);
  return static_cast<std::size_t>(
      std::popcount(static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(bad)))));
}

template <typename From, typename To>
PF_AVX2 std::size_t convert_avx2(const std::byte* source, std::byte* destination,
                                 std::size_t count) {
  const auto* from = reinterpret_cast<const typename From::Bits*>(source);
  auto* to = reinterpret_cast<typename To::Bits*>(destination);
  std::size_t found = 0;
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) found += store8(To{}, to + i, load8(From{}, from + i));
  if (i < count) {
    std::array<typename From::Bits, 8> rest{};
    std::array<typename To::Bits, 8> done{};
    std::memcpy(rest.data(), from + i, (count - i) * sizeof(rest[0]));
    found += store8(To{}, done.data(), load8(From{}, rest.data()));
    std::memcpy(to + i, done.data(), (count - i) * sizeof(done[0]));
  }
  return found;
}

// ---- AVX-512: sixteen values at a time
// -----------------------------------------------------------

PF_AVX512 PF_INLINE __m512 load16(F16, const std::uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

PF_AVX512 PF_INLINE __m512 load16(BF16, const std::uint16_t* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
  const __m512 values = _mm512_castsi512_ps(bits);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(0x00400000)));
}

PF_AVX512 PF_INLINE __m512 load16(F32, const std::uint32_t* from) {
  return _mm512_castsi512_ps(_mm512_loadu_si512(from));
}

PF_AVX512 PF_INLINE std::size_t count16(__m256i bits, std::uint16_t exponent) {
  const __m256i mask = _mm256_set1_epi16(static_cast<std::int16_t>(exponent));
  const __mmask16 bad = _mm256_cmpeq_epi16_mask(_mm256_and_si256(bits, mask), mask);
  return static_cast<std::size_t>(std::popcount(static_cast<std::uint32_t>(bad)));
}

PF_AVX512 PF_INLINE std::size_t store16(F16, std::uint16_t* to, __m512 values) {
  const __m256i bits = _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
  return count16(bits, F16::exponent);
}

PF_AVX512 PF_INLINE std::size_t store16(BF16, std::uint16_t* to, __m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_epi32(high, _mm512_set1_epi32(1));
  const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
  const __m256i halves = _mm512_cvtepi32_epi16(chosen);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
  return count16(halves, BF16::exponent);
}

PF_AVX512 PF_INLINE std::size_t store16(F32, std::uint32_t* to, __m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  _mm512_storeu_si512(to, bits);
  const __m512i mask = _mm512_set1_epi32(static_cast<std::int32_t>(F32::exponent));
  const __mmask16 bad = _mm512_cmpeq_epi32_mask(_mm512_and_epi32(bits, mask), mask);
  return static_cast<std::size_t>(std::popcount(static_cast<std::uint32_t>(bad)));
}

template <typename From, typename To>
PF_AVX512 std::size_t convert_avx512(const std::byte* source, std::byte* destination,
                                     std::size_t count) {
  const auto* from = reinterpret_cast<const typename From::Bits*>(source);
  auto* to = reinterpret_cast<typename To::Bits*>(destination);
  std::size_t found = 0;
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) found += store16(To{}, to + i, load16(From{}, from + i));
  if (i < count) {
    std::array<typename From::Bits, 16> rest{};
    std::array<typename To::Bits, 16> done{};
    std::memcpy(rest.data(), from + i, (count - i) * sizeof(rest[0]));
    found += store16(To{}, done.data(), load16(From{}, rest.data()));
    std::memcpy(to + i, done.data(), (count - i) * sizeof(done[0]));
  }
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
    if (level == Level::avx512) return convert_avx512<From, To>;
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

template <typename Format>
Scan choose_scan([[maybe_unused]] Level level) {
#if defined(__x86_64__)
  if (level == Level::avx512) return scan_avx512<Format>;
  if (level == Level::avx2) return scan_avx2<Format>;
#endif
  return scan_portable<Format>;
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
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  if (level == Level::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

Level best_level() {
  if (supported(Level::avx512)) return Level::avx512;
  if (supported(Level::avx2)) return Level::avx2;
  return Level::portable;
}

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

Scan scanner(FloatType type, Level level) {
  switch (type) {
    case FloatType::f16:
      return choose_scan<F16>(level);
    case FloatType::bf16:
      return choose_scan<BF16>(level);
    case FloatType::f32:
      return choose_scan<F32>(level);
    case FloatType::f64:
      return choose_scan<F64>(level);
  }
  __builtin_unreachable();
}

}  // namespace pythia_fast
