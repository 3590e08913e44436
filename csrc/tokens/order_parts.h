// What the files that build an order and check one have in common: pieces of work, reads of arrays
// that may be mapped, and words for errors.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "io/errors.h"
#include "io/guard.h"
#include "io/workers.h"

namespace pythia_fast::order {

inline constexpr std::uint64_t piece_items = std::uint64_t{1} << 14;
inline std::uint64_t pieces(std::uint64_t items) { return (items + piece_items - 1) / piece_items; }

// Calls work(begin, end) for the pieces of `items`.
template <typename Work>
void share_items(std::uint64_t items, std::size_t threads, const Work& work) {
  share(pieces(items), threads, [&](std::size_t piece) {
    work(piece * piece_items, std::min(items, (piece + 1) * piece_items));
  });
}

inline std::string pair(std::int64_t position, std::int64_t offset) {
  return std::string("(") + std::to_string(position) + ", " + std::to_string(offset) + ")";
}

[[noreturn]] inline void refuse_document(std::uint64_t position, std::int64_t document,
                                         std::uint64_t documents) {
  throw OrderError("doc_idx[" + std::to_string(position) + "] is document " +
                   std::to_string(document) + " of " + std::to_string(documents));
}

// Calls work(), which reads an array that may be mapped from a file: it is noexcept and leaves
// nothing to destroy (io/guard.h).
template <typename Work>
void read(Bytes array, const char* name, Work work) {
  const std::array<Bytes, 1> ranges{array};
  if (guarded(ranges, work) == nullptr) return;
  throw OrderError(std::string(name) + " cannot be read any more: has its file shrunk?");
}

}  // namespace pythia_fast::order
