#include "io/read_tensors.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "io/errors.h"
#include "io/workers.h"

namespace pythia_fast {
namespace {

// Source bytes of one piece of work: small enough to stay in a core's own cache between the read
// and the conversion, large enough that system calls do not count.
constexpr std::size_t piece_bytes = std::size_t{1} << 19;

struct Piece {
  std::size_t read;
  std::uint64_t begin;  // values of the tensor, counted row after row
  std::uint64_t end;
};

std::uint64_t product(std::uint64_t a, std::uint64_t b, const char* what) {
  std::uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    throw ArgumentError(std::string(what) + " is " + std::to_string(a) + " x " + std::to_string(b) +
                        ", which no 64-bit number holds");
  }
  return result;
}

bool contiguous(const Read& read) {
  return read.rows <= 1 ||
         read.destination_row_bytes == read.columns * item_size(read.destination_type);
}

void check(const Read& read, std::size_t index, std::span<std::byte> destination) {
  const std::string name = "read " + std::to_string(index) + " (" + read.file->path() + ")";
  const std::uint64_t values = product(read.rows, read.columns, "a tensor's size");
  read.file->require(read.offset, product(values, item_size(read.type), "a tensor's bytes"));
  if (values == 0) return;
  const std::uint64_t item = item_size(read.destination_type);
  const std::uint64_t row = product(read.columns, item, "a row's bytes");
  if (read.rows > 1 && read.destination_row_bytes < row) {
    throw ArgumentError(name + ": rows of " + std::to_string(row) + " bytes do not fit " +
                        std::to_string(read.destination_row_bytes) + " bytes apart");
  }
  const std::uint64_t stride = read.rows > 1 ? read.destination_row_bytes : row;
  const std::uint64_t before_last = product(read.rows - 1, stride, "a destination's bytes");
  std::uint64_t extent = 0;
  if (__builtin_add_overflow(before_last, row, &extent) ||
      read.destination_offset > destination.size() ||
      extent > destination.size() - read.destination_offset) {
    throw ArgumentError(name + ": " + std::to_string(read.rows) + " rows of " +
                        std::to_string(row) + " bytes from byte " +
                        std::to_string(read.destination_offset) + " do not fit a destination of " +
                        std::to_string(destination.size()) + " bytes");
  }
  const auto address = reinterpret_cast<std::uintptr_t>(destination.data());
  if ((address + read.destination_offset) % item != 0 || stride % item != 0) {
    throw ArgumentError(name + ": its destination is not aligned to " + std::to_string(item) +
                        " bytes");
  }
}

// Where the values from `begin` lie in a tensor with gaps between its rows.
std::byte* place(const Read& read, std::byte* base, std::uint64_t begin) {
  const std::uint64_t item = item_size(read.destination_type);
  if (contiguous(read)) return base + begin * item;
  return base + begin / read.columns * read.destination_row_bytes + begin % read.columns * item;
}

std::uint64_t run(const Read& read, const Piece& piece, std::byte* destination, Isa isa) {
  const Convert convert = converter(read.type, read.destination_type, isa);
  const std::size_t item = item_size(read.type);
  const std::size_t bytes = static_cast<std::size_t>(piece.end - piece.begin) * item;
  thread_local std::vector<std::byte> scratch;  // from operator new: aligned for any of the types
  if (scratch.size() < bytes) scratch.resize(bytes);
  read.file->read(read.offset + piece.begin * item, {scratch.data(), bytes});

  std::byte* base = destination + read.destination_offset;
  std::uint64_t found = 0;
  for (std::uint64_t at = piece.begin; at < piece.end;) {
    const std::uint64_t in_row =
        contiguous(read) ? piece.end - at : read.columns - at % read.columns;
    const std::size_t values = static_cast<std::size_t>(std::min(in_row, piece.end - at));
    found += convert(scratch.data() + (at - piece.begin) * item, place(read, base, at), values);
    at += values;
  }
  finish_stores();
  return found;
}

}  // namespace

std::vector<std::uint64_t> read_tensors(std::span<const Read> reads,
                                        std::span<std::byte> destination, std::size_t threads,
                                        Isa isa) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    check(reads[i], i, destination);
    const std::uint64_t values = reads[i].rows * reads[i].columns;
    const std::uint64_t step = piece_bytes / item_size(reads[i].type);
    for (std::uint64_t begin = 0; begin < values; begin += std::min(step, values - begin)) {
      pieces.push_back({i, begin, begin + std::min(step, values - begin)});
    }
  }
  std::vector<std::atomic<std::uint64_t>> found(reads.size());
  share(pieces.size(), threads, [&](std::size_t index) {
    const Piece& piece = pieces[index];
    found[piece.read] += run(reads[piece.read], piece, destination.data(), isa);
  });
  return {found.begin(), found.end()};
}

}  // namespace pythia_fast
