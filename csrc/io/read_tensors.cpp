#include "io/read_tensors.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <string>
#include <tuple>

#include "io/ahead.h"
#include "io/errors.h"
#include "io/workers.h"

namespace pythia_fast {
namespace {

// Source bytes of one read: small enough that these and the next ones stay in a core's own cache
// until they are converted, large enough that system calls do not count.
constexpr std::size_t piece_bytes = std::size_t{1} << 17;

// What a thread takes at a time: pieces that follow each other in a file.
constexpr std::size_t span_bytes = std::size_t{1} << 23;

struct Piece {
  std::size_t read;
  std::uint64_t begin;  // values of the tensor, counted row after row
  std::uint64_t end;
};

struct alignas(64) Line {
  std::byte bytes[64];
};

struct Span {
  std::size_t begin;  // pieces
  std::size_t end;
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

std::uint64_t file_offset(const Read& read, std::uint64_t value) {
  return read.offset + value * item_size(read.type);
}

std::size_t source_bytes(const Read& read, const Piece& piece) {
  return static_cast<std::size_t>(piece.end - piece.begin) * item_size(read.type);
}

// The pieces of all reads, those of a file in the order of its bytes.
std::vector<Piece> cut(std::span<const Read> reads) {
  std::vector<std::size_t> order(reads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::tuple(reads[a].file.get(), reads[a].offset, a) <
           std::tuple(reads[b].file.get(), reads[b].offset, b);
  });
  std::vector<Piece> pieces;
  for (const std::size_t i : order) {
    const std::uint64_t values = reads[i].rows * reads[i].columns;
    const std::uint64_t step = piece_bytes / item_size(reads[i].type);
    for (std::uint64_t begin = 0; begin < values; begin += std::min(step, values - begin)) {
      pieces.push_back({i, begin, begin + std::min(step, values - begin)});
    }
  }
  return pieces;
}

// Fewer pieces to a span where else some threads would have none.
std::vector<Span> group(std::span<const Read> reads, std::span<const Piece> pieces,
                        std::size_t threads) {
  std::uint64_t all = 0;
  for (const Piece& piece : pieces) all += source_bytes(reads[piece.read], piece);
  const std::uint64_t most = std::clamp<std::uint64_t>(
      all / (2 * std::max<std::size_t>(1, threads)), piece_bytes, span_bytes);
  std::vector<Span> spans;
  for (std::size_t i = 0; i < pieces.size();) {
    const Read& first = reads[pieces[i].read];
    const std::uint64_t begin = file_offset(first, pieces[i].begin);
    Span span{i, i + 1};
    for (++i; i < pieces.size(); ++i, ++span.end) {
      const Read& next = reads[pieces[i].read];
      if (next.file != first.file) break;
      if (file_offset(next, pieces[i].end) - begin > most) break;
    }
    spans.push_back(span);
  }
  return spans;
}

// Converts what `source` holds of the piece. `ahead` is what to prefetch meanwhile, as much again.
std::uint64_t place_all(const Read& read, const Piece& piece, const std::byte* source,
                        const std::byte* ahead, std::byte* destination, Isa isa) {
  const Convert convert = converter(read.type, read.destination_type, isa);
  const std::size_t item = item_size(read.type);
  std::byte* base = destination + read.destination_offset;
  std::uint64_t found = 0;
  for (std::uint64_t at = piece.begin; at < piece.end;) {
    const std::uint64_t in_row =
        contiguous(read) ? piece.end - at : read.columns - at % read.columns;
    const std::size_t values = static_cast<std::size_t>(std::min(in_row, piece.end - at));
    const std::size_t done = static_cast<std::size_t>(at - piece.begin) * item;
    found += convert(source + done, place(read, base, at), values, ahead + done);
    at += values;
  }
  return found;
}

// Reads and converts pieces that follow each other in one file. While one is converted, the bytes
// that follow it there are called into the cache.
void run(std::span<const Read> reads, std::span<const Piece> pieces, std::byte* destination,
         Isa isa, std::span<std::atomic<std::uint64_t>> found) {
  const File& file = *reads[pieces.front().read].file;
  const std::uint64_t begin = file_offset(reads[pieces.front().read], pieces.front().begin);
  std::uint64_t end = begin;
  std::size_t wanted = 0;
  for (const Piece& piece : pieces) {
    end = std::max(end, file_offset(reads[piece.read], piece.end));
    wanted += source_bytes(reads[piece.read], piece);
  }
  const std::size_t bytes = static_cast<std::size_t>(end - begin);
  const bool worth_it = bytes > piece_bytes && wanted > bytes / 2;
  const Ahead ahead(file, begin, worth_it ? bytes : 0);
  prefetch(ahead.at(begin, piece_bytes), piece_bytes);

  thread_local std::vector<Line> scratch(piece_bytes / sizeof(Line));
  for (const Piece& piece : pieces) {
    const Read& read = reads[piece.read];
    const auto source = std::as_writable_bytes(std::span(scratch)).first(source_bytes(read, piece));
    const std::uint64_t offset = file_offset(read, piece.begin);
    file.read(offset, source);
    const std::byte* next = ahead.at(offset + piece_bytes, source.size());
    found[piece.read] += place_all(read, piece, source.data(),
                                   next != nullptr ? next : source.data(), destination, isa);
  }
  finish_stores();
}

}  // namespace

std::vector<std::uint64_t> read_tensors(std::span<const Read> reads,
                                        std::span<std::byte> destination, std::size_t threads,
                                        Isa isa) {
  for (std::size_t i = 0; i < reads.size(); ++i) check(reads[i], i, destination);
  const std::vector<Piece> pieces = cut(reads);
  const std::vector<Span> spans = group(reads, pieces, threads);
  std::vector<std::atomic<std::uint64_t>> found(reads.size());
  share(spans.size(), threads, [&](std::size_t index) {
    const auto& [begin, end] = spans[index];
    run(reads, std::span(pieces).subspan(begin, end - begin), destination.data(), isa, found);
  });
  return {found.begin(), found.end()};
}

}  // namespace pythia_fast
