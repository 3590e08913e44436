// The tokens of each document, as they lie in an .idx (32 bits, unaligned), to be read through
// `guarded` (io/guard.h), or in an array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace pythia_fast {

struct Lengths {
  const std::byte* begin;
  std::uint64_t count;
  std::size_t item_bytes;  // 4 or 8, of signed integers

  std::span<const std::byte> bytes() const { return {begin, count * item_bytes}; }

  void prefetch(std::uint64_t document) const noexcept {
    __builtin_prefetch(begin + document * item_bytes);
  }

  std::int64_t operator[](std::uint64_t document) const noexcept {
    if (item_bytes == 4) {
      std::int32_t narrow;
      std::memcpy(&narrow, begin + document * item_bytes, sizeof narrow);
      return narrow;
    }
    std::int64_t wide;
    std::memcpy(&wide, begin + document * item_bytes, sizeof wide);
    return wide;
  }
};

}  // namespace pythia_fast
