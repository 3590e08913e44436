// AVX-512: thirty-two values at a time, the ends by masks. Results are streamed past the caches, as
// in convert_avx2.cpp, a whole line a store.
#if defined(__x86_64__)

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "intrinsics.h"
#include "io/float_formats.h"

#define PF_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,popcnt")))

namespace pythia_fast {
namespace {

// Up to thirty-two values, the first sixteen `low`, as float32.
struct Floats {
  __m512 low;
  __m512 high;
};

PF_AVX512 PF_INLINE __m512 widen(F16, __m256i bits) { return _mm512_cvtph_ps(bits); }

PF_AVX512 PF_INLINE __m512 widen(BF16, __m256i bits) {
  const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
  const __m512 values = _mm512_castsi512_ps(wide);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_set1_epi32(0x00400000);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(wide, nan, wide, quiet));
}

// Each float rounded to its upper half; the lower half holds what is left.
PF_AVX512 PF_INLINE __m512i round_to_bf16(__m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __mmask16 number = _mm512_cmp_ps_mask(values, values, _CMP_ORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
  return _mm512_mask_add_epi32(quiet, number, bits, bias);
}

PF_AVX512 PF_INLINE __m512i narrow(F16, Floats values) {
  constexpr int rounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const __m512i low = _mm512_castsi256_si512(_mm512_cvtps_ph(values.low, rounding));
  return _mm512_inserti64x4(low, _mm512_cvtps_ph(values.high, rounding), 1);
}

PF_AVX512 PF_INLINE __m512i narrow(BF16, Floats values) {
  const __m512i upper_halves =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16(round_to_bf16(values.low), upper_halves,
                                   round_to_bf16(values.high));
}

template <typename From>
PF_AVX512 PF_INLINE Floats load(From, const typename From::Bits* from, __mmask32 which) {
  if constexpr (std::is_same_v<From, F32>) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(which), from),
            _mm512_maskz_loadu_ps(static_cast<__mmask16>(which >> 16), from + 16)};
  } else {
    return {
        widen(From{}, _mm256_maskz_loadu_epi16(static_cast<__mmask16>(which), from)),
        widen(From{}, _mm256_maskz_loadu_epi16(static_cast<__mmask16>(which >> 16), from + 16))};
  }
}

// Writes what `which` says, past the caches if that is all and `to` lies on a line. Returns how
// many have all bits of the exponent set; masked lanes are zero.
template <typename To>
PF_AVX512 PF_INLINE std::size_t store16(To, void* to, __m512i bits, __mmask32 which, bool stream) {
  const __m512i exponent = _mm512_set1_epi16(static_cast<std::int16_t>(To::exponent));
  if (stream) {
    _mm512_stream_si512(static_cast<__m512i*>(to), bits);
  } else {
    _mm512_mask_storeu_epi16(to, which, bits);
  }
  const auto bad = _mm512_cmpeq_epi16_mask(_mm512_and_si512(bits, exponent), exponent);
  return static_cast<std::size_t>(std::popcount(bad));
}

PF_AVX512 PF_INLINE std::size_t store32(float* to, __m512 values, __mmask16 which, bool stream) {
  const __m512i exponent = _mm512_set1_epi32(static_cast<std::int32_t>(F32::exponent));
  const __m512i bits = _mm512_castps_si512(values);
  if (stream) {
    _mm512_stream_ps(to, values);
  } else {
    _mm512_mask_storeu_ps(to, which, values);
  }
  const auto bad = _mm512_cmpeq_epi32_mask(_mm512_and_si512(bits, exponent), exponent);
  return static_cast<std::size_t>(std::popcount(static_cast<std::uint32_t>(bad)));
}

template <typename From, typename To>
PF_AVX512 PF_INLINE std::size_t convert32(const typename From::Bits* from, typename To::Bits* to,
                                          __mmask32 which, bool stream) {
  if constexpr (std::is_same_v<To, F32>) {
    const Floats values = load(From{}, from, which);
    auto* floats = reinterpret_cast<float*>(to);
    return store32(floats, values.low, static_cast<__mmask16>(which), stream) +
           store32(floats + 16, values.high, static_cast<__mmask16>(which >> 16), stream);
  } else if constexpr (std::is_same_v<From, To>) {
    return store16(To{}, to, _mm512_maskz_loadu_epi16(which, from), which, stream);
  } else {
    const __m512i bits = narrow(To{}, load(From{}, from, which));
    return store16(To{}, to, bits, which, stream);
  }
}

template <typename From, typename To>
PF_AVX512 std::size_t convert_all(const std::byte* source, std::byte* destination,
                                  std::size_t count, const std::byte* ahead) {
  const auto* from = reinterpret_cast<const typename From::Bits*>(source);
  auto* to = reinterpret_cast<typename To::Bits*>(destination);
  std::size_t found = 0;
  const auto some = [&](std::size_t n) PF_AVX512 {  // fewer than thirty-two
    found += convert32<From, To>(from, to, (__mmask32{1} << n) - 1, false);
    from += n, to += n, count -= n, ahead += n * sizeof(*from);
  };
  const std::size_t unaligned = (0 - reinterpret_cast<std::uintptr_t>(to)) % 64 / sizeof(*to);
  if (unaligned != 0) some(std::min(unaligned, count));
  for (; count >= 32; from += 32, to += 32, count -= 32) {
    for (std::size_t line = 0; line < 32 * sizeof(*from); line += 64, ahead += 64) {
      _mm_prefetch(ahead, _MM_HINT_T1);
    }
    found += convert32<From, To>(from, to, ~__mmask32{0}, true);
  }
  if (count != 0) some(count);
  return found;
}

}  // namespace

Convert convert_avx512(FloatType source, FloatType destination) {
  return with_format(source, [=](auto from) {
    return with_format(destination, [](auto to) -> Convert {
      if constexpr (std::is_same_v<decltype(from), F64> || std::is_same_v<decltype(to), F64>) {
        return nullptr;
      } else {
        return convert_all<decltype(from), decltype(to)>;
      }
    });
  });
}

}  // namespace pythia_fast

#endif
