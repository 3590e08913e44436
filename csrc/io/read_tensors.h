// Weights out of files into memory that the caller owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/convert.h"
#include "io/file.h"
#include "isa.h"

namespace pythia_fast {

// One tensor's way: a dense [rows, columns] block of a file into rows of the destination, which
// begin `destination_row_bytes` apart.
struct Read {
  std::shared_ptr<const File> file;
  std::uint64_t offset;
  FloatType type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::uint64_t destination_offset;
  FloatType destination_type;
  std::uint64_t destination_row_bytes;
};

// Does all `reads` on at most `threads` threads and returns for each the number of NaN and infinite
// values that it wrote. Every range is checked before the first byte moves; what a later failure
// leaves in `destination` is undefined. The destinations of two reads must not overlap.
std::vector<std::uint64_t> read_tensors(std::span<const Read> reads,
                                        std::span<std::byte> destination, std::size_t threads,
                                        Isa isa);

}  // namespace pythia_fast
