// Where there are AMX tiles there is AVX-512 BF16 too, whose conversion rounds as ours do but takes
// subnormal floats for zero. Of float16 none becomes one; float32 stays with AVX-512.
#if defined(__x86_64__)

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "intrinsics.h"
#include "io/float_formats.h"

#define PF_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,popcnt")))

namespace pythia_fast {
namespace {

PF_AMX std::size_t f16_to_bf16(const std::byte* source, std::byte* destination, std::size_t count,
                               const std::byte* ahead) {
  static const Convert few = convert_avx512(FloatType::f16, FloatType::bf16);
  const std::size_t before = (0 - reinterpret_cast<std::uintptr_t>(destination)) % 64 / 2;
  std::size_t at = std::min(before, count) * 2;
  std::size_t found = few(source, destination, at / 2, ahead);
  const __m512i exponent = _mm512_set1_epi16(static_cast<std::int16_t>(BF16::exponent));
  for (; at + 64 <= count * 2; at += 64) {
    _mm_prefetch(ahead + at, _MM_HINT_T1);
    const auto* from = reinterpret_cast<const __m256i_u*>(source + at);
    const __m512 low = _mm512_cvtph_ps(_mm256_loadu_si256(from));
    const __m512 high = _mm512_cvtph_ps(_mm256_loadu_si256(from + 1));
    const auto bits = __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(high, low));
    _mm512_stream_si512(reinterpret_cast<__m512i*>(destination + at), bits);
    const auto bad = _mm512_cmpeq_epi16_mask(_mm512_and_si512(bits, exponent), exponent);
    found += static_cast<std::size_t>(std::popcount(bad));
  }
  return found + few(source + at, destination + at, count - at / 2, ahead + at);
}

}  // namespace

Convert convert_amx(FloatType source, FloatType destination) {
  if (source == FloatType::f16 && destination == FloatType::bf16) return f16_to_bf16;
  return convert_avx512(source, destination);
}

}  // namespace pythia_fast

#endif
