// The Mersenne Twister (Matsumoto and Nishimura, ACM TOMACS 8, 1998), seeded with one number as
// NumPy's RandomState is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pythia_fast {

class Mt19937 {
 public:
  explicit Mt19937(std::uint32_t seed);

  // The words that come next, at least one; `skip` says how many were taken.
  std::span<const std::uint32_t> ahead() {
    if (taken_ == length) make_words();
    return std::span<const std::uint32_t>(words_).subspan(taken_);
  }
  void skip(std::size_t words) { taken_ += words; }

  std::uint32_t next() {
    const std::uint32_t word = ahead().front();
    skip(1);
    return word;
  }

 private:
  static constexpr std::size_t length = 624;

  void make_words();

  std::array<std::uint32_t, length> state_;
  std::array<std::uint32_t, length> words_{};
  std::size_t taken_ = length;
};

}  // namespace pythia_fast
