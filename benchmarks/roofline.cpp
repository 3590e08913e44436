// What this processor can do at most, measured: fused multiply-adds in float32, products of
// bfloat16 in AMX tiles or AVX-512, and bytes from and to memory. Built with -march=native by
// roofline.py.
//
//     roofline THREADS SECONDS BUFFER_BYTES     prints one "name value" a line, in 1/s
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
using Vector = float __attribute__((vector_size(vector_bytes)));

volatile float sink = 0;

// Enough independent sums to hide a latency of 4 cycles at two instructions a cycle, and few enough
// for 16 registers.
double fma_block() {
  constexpr int sums = 10, turns = 20'000;
  Vector sum[sums];
  for (int j = 0; j < sums; ++j) sum[j] = Vector{} + static_cast<float>(j) + sink;
  const Vector a = Vector{} + 0.5F + sink, b = Vector{} + 0.25F + sink;
  for (int i = 0; i < turns; ++i) {
#pragma GCC unroll 10
    for (int j = 0; j < sums; ++j) sum[j] = sum[j] * a + b;
  }
  Vector all{};
  for (const Vector& each : sum) all += each;
  sink = all[0] * 0;
  return 2.0 * sums * turns * (vector_bytes / 4);
}

#if defined(__AVX512BF16__)
double avx512_bf16_block() {
  constexpr int sums = 10, turns = 20'000;
  __m512 sum[sums];
  for (int j = 0; j < sums; ++j) sum[j] = _mm512_set1_ps(static_cast<float>(j) + sink);
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5F), _mm512_set1_ps(0.25F));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.125F), _mm512_set1_ps(0.5F));
  for (int i = 0; i < turns; ++i) {
#pragma GCC unroll 10
    for (int j = 0; j < sums; ++j) sum[j] = _mm512_dpbf16_ps(sum[j], a, b);
  }
  float total = 0;
  for (const __m512& each : sum) total += each[0];
  sink = total * 0;
  return 2.0 * sums * turns * 32;
}
#endif

#if defined(__AMX_BF16__)
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

bool tiles_permitted() {
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}

// Four sums of two tiles by two, the shape of every AMX product; nothing is loaded on the way.
double amx_block() {
  constexpr int turns = 20'000;
  alignas(64) std::uint16_t ones[16 * 32];
  for (int i = 0; i < 16 * 32; ++i) ones[i] = static_cast<std::uint16_t>(0x3f00 + i % 64);
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.bytes_per_row[i] = 64, config.rows[i] = 16;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, ones, 64);
  _tile_loadd(5, ones, 64);
  _tile_loadd(6, ones, 64);
  _tile_loadd(7, ones, 64);
  for (int i = 0; i < turns; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float out[16 * 16];
  _tile_stored(0, out, 64);
  sink = out[0] * 0;
  _tile_release();
  return 4.0 * turns * 2 * 16 * 16 * 32;
}
#endif

// The best of several rounds; in each, all threads work for about `seconds`.
double rate(int threads, double seconds, const std::function<double(int)>& block) {
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<double> done(static_cast<std::size_t>(threads));
    std::vector<std::thread> crew;
    const auto begin = Clock::now();
    for (int t = 0; t < threads; ++t) {
      crew.emplace_back([&, t] {
        while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds) {
          done[static_cast<std::size_t>(t)] += block(t);
        }
      });
    }
    for (std::thread& worker : crew) worker.join();
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    double all = 0;
    for (const double each : done) all += each;
    best = std::max(best, all / elapsed);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = std::atoi(argv[1]);
  const double seconds = std::atof(argv[2]);
  const std::size_t share = std::strtoull(argv[3], nullptr, 10) / static_cast<std::size_t>(threads);
  if (threads < 1 || share < 4096) return 2;

  std::printf("fma_float32_flop_per_s %.6g\n",
              rate(threads, seconds, [](int) { return fma_block(); }));
#if defined(__AVX512BF16__)
  std::printf("avx512_bfloat16_flop_per_s %.6g\n",
              rate(threads, seconds, [](int) { return avx512_bf16_block(); }));
#endif
#if defined(__AMX_BF16__)
  if (tiles_permitted()) {
    std::printf("amx_bfloat16_flop_per_s %.6g\n",
                rate(threads, seconds, [](int) { return amx_block(); }));
  }
#endif

  std::vector<std::vector<std::uint64_t>> from, to;
  for (int t = 0; t < threads; ++t) {
    from.emplace_back(share / 8, 1U);
    to.emplace_back(share / 8, 2U);
  }
  const double read = rate(threads, seconds, [&](int t) {
    std::uint64_t sum = 0;
    for (const std::uint64_t word : from[static_cast<std::size_t>(t)]) sum += word;
    __asm__ volatile("" : : "r"(sum) : "memory");  // or the compiler leaves the reading out
    return static_cast<double>(share / 8 * 8);
  });
  const double copied = rate(threads, seconds, [&](int t) {
    const auto& source = from[static_cast<std::size_t>(t)];
    std::memcpy(to[static_cast<std::size_t>(t)].data(), source.data(), source.size() * 8);
    return static_cast<double>(source.size() * 8);
  });
  std::printf("memory_read_byte_per_s %.6g\nmemory_copy_byte_per_s %.6g\n", read, copied);
  return 0;
}
