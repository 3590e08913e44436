// AVX2: ids widened a cache line of the result at a time.
#if defined(__x86_64__)

#include "intrinsics.h"
#include "tokens/copy_ids.h"

#define PF_AVX2 __attribute__((target("avx2")))

namespace pythia_fast {
namespace {

PF_AVX2 inline __m128i load16(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

PF_AVX2 inline __m128i load8(const std::byte* from) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
}

// 32 bytes of the result.
PF_AVX2 inline __m256i widened(std::uint16_t, std::int64_t, const std::byte* from) {
  return _mm256_cvtepu16_epi64(load8(from));
}
PF_AVX2 inline __m256i widened(std::uint16_t, std::int32_t, const std::byte* from) {
  return _mm256_cvtepu16_epi32(load16(from));
}
PF_AVX2 inline __m256i widened(std::int32_t, std::int64_t, const std::byte* from) {
  return _mm256_cvtepi32_epi64(load16(from));
}

template <typename To, typename From>
PF_AVX2 std::uint64_t stream(const std::byte* from, std::byte* destination, std::uint64_t count) {
  static_assert(holds_all<To, From>());
  constexpr std::uint64_t line = 64 / sizeof(To);
  auto* to = reinterpret_cast<To*>(destination);
  std::uint64_t i = 0;
  const auto one = [&] {
    to[i] = static_cast<To>(load_id<From>(from + i * sizeof(From)));
    ++i;
  };
  while (i < count && reinterpret_cast<std::uintptr_t>(to + i) % 64 != 0) one();
  for (; i + line <= count; i += line) {
    const std::byte* here = from + i * sizeof(From);
    auto* there = reinterpret_cast<__m256i*>(to + i);
    _mm256_stream_si256(there, widened(From{}, To{}, here));
    _mm256_stream_si256(there + 1, widened(From{}, To{}, here + line / 2 * sizeof(From)));
  }
  while (i < count) one();
  return count;
}

}  // namespace

CopyIds copy_ids_avx2(IdType from, IdType to) {
  if (from == IdType::u16 && to == IdType::i64) return stream<std::int64_t, std::uint16_t>;
  if (from == IdType::u16 && to == IdType::i32) return stream<std::int32_t, std::uint16_t>;
  if (from == IdType::i32 && to == IdType::i64) return stream<std::int64_t, std::int32_t>;
  return nullptr;
}

}  // namespace pythia_fast

#endif
