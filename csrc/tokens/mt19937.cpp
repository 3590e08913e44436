#include "tokens/mt19937.h"

namespace pythia_fast {
namespace {

constexpr std::size_t shift = 397;

// The highest bit of one word and the others of the next, times the matrix A. No branch, so that
// compilers vectorise the loops below.
std::uint32_t twist(std::uint32_t high, std::uint32_t low) {
  const std::uint32_t joined = (high & 0x80000000U) | (low & 0x7fffffffU);
  return (joined >> 1) ^ ((0U - (low & 1U)) & 0x9908b0dfU);
}

std::uint32_t temper(std::uint32_t word) {
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680U;
  word ^= (word << 15) & 0xefc60000U;
  return word ^ (word >> 18);
}

}  // namespace

Mt19937::Mt19937(std::uint32_t seed) {
  state_[0] = seed;
  for (std::uint32_t i = 1; i < length; ++i) {
    const std::uint32_t before = state_[i - 1];
    state_[i] = 1812433253U * (before ^ (before >> 30)) + i;
  }
}

void Mt19937::make_words() {
  std::size_t i = 0;
  for (; i < length - shift; ++i) {
    state_[i] = state_[i + shift] ^ twist(state_[i], state_[i + 1]);
  }
  for (; i < length - 1; ++i) {
    state_[i] = state_[i + shift - length] ^ twist(state_[i], state_[i + 1]);
  }
  state_[i] = state_[shift - 1] ^ twist(state_[i], state_[0]);
  for (i = 0; i < length; ++i) words_[i] = temper(state_[i]);
  taken_ = 0;
}

}  // namespace pythia_fast
