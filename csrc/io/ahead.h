// Calls the bytes of a file into the processor's cache before they are read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/file.h"

namespace pythia_fast {

// A range of a file, mapped so that its lines can be prefetched, and for nothing else: no byte is
// ever loaded through it. A prefetch of a page that is gone does nothing, so that a file that
// shrinks meanwhile raises no SIGBUS. `pread` then copies from the cache instead of from memory.
//
// Only what the system holds in memory already is mapped; where it does not, or refuses, there is
// nothing to prefetch, and reading is slower.
class Ahead {
 public:
  Ahead(const File& file, std::uint64_t offset, std::size_t bytes) noexcept;
  ~Ahead();
  Ahead(const Ahead&) = delete;
  Ahead& operator=(const Ahead&) = delete;

  // Where [offset, offset + bytes) of the file can be prefetched, or null.
  const std::byte* at(std::uint64_t offset, std::size_t bytes) const noexcept;

 private:
  std::uint64_t offset_ = 0;  // of the first page
  std::size_t bytes_ = 0;
  void* begin_ = nullptr;
};

// Prefetches every line of `bytes` bytes; nothing if `begin` is null.
void prefetch(const std::byte* begin, std::size_t bytes) noexcept;

}  // namespace pythia_fast
