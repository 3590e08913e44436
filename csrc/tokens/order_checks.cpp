#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/errors.h"
#include "tokens/order.h"
#include "tokens/order_parts.h"

namespace pythia_fast {
namespace {

using namespace order;

template <typename T>
struct Refused {
  std::uint64_t place;
  T value;
};

// The first place at which `mark` says no and what lies there, or the number of places. Each thread
// goes through all values and marks those of a range of its own: marks need not be atomic, which
// would make every one wait for memory.
template <typename T, typename Mark>
Refused<T> first_refused(std::span<const T> values, const char* name, std::uint64_t limit,
                         std::size_t threads, const Mark& mark) {
  const std::uint64_t count = values.size();
  const std::size_t ranges = std::clamp<std::size_t>(threads, 1, 16);
  const std::uint64_t each = limit / ranges / 64 * 64 + 64;  // no two in one word of bits
  std::vector<Refused<T>> refused(ranges, {count, 0});
  share(ranges, threads, [&](std::size_t range) {
    const std::uint64_t low = std::min(limit, range * each);
    const std::uint64_t high = std::min(limit, low + each);
    read(std::as_bytes(values), name, [&]() noexcept {
      for (std::uint64_t i = 0; i < count; ++i) {
        const T value = values[i];                             // a copy: the file may be changed
        const auto index = static_cast<std::uint64_t>(value);  // far too high if it is negative
        if (index >= low && index < high ? mark(index) : index < limit) continue;
        refused[range] = {i, value};
        return;
      }
    });
  });
  return *std::min_element(refused.begin(), refused.end(),
                           [](const auto& a, const auto& b) { return a.place < b.place; });
}

template <typename T>
void check_values(std::span<const T> values, std::size_t threads) {
  const std::uint64_t count = values.size();
  std::vector<std::uint64_t> seen(count / 64 + 1);
  const auto mark = [&](std::uint64_t value) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << (value % 64);
    const bool first = (seen[value / 64] & bit) == 0;
    seen[value / 64] |= bit;
    return first;
  };
  const auto [place, value] = first_refused(values, "shuffle_idx", count, threads, mark);
  if (place == count) return;
  const bool inside = std::cmp_greater_equal(value, 0) && std::cmp_less(value, count);
  throw OrderError("shuffle_idx is no permutation: shuffle_idx[" + std::to_string(place) + "] is " +
                   std::to_string(value) + " of " + std::to_string(count) +
                   (inside ? " samples, and was there before" : " samples"));
}

template <typename Counter>
void count_documents(std::span<const std::int32_t> doc_idx, std::uint64_t documents,
                     std::uint64_t epochs, std::size_t threads) {
  std::vector<Counter> seen(documents);
  const auto mark = [&](std::uint64_t document) noexcept {
    if (seen[document] == epochs) return false;
    ++seen[document];
    return true;
  };
  const auto [place, document] = first_refused(doc_idx, "doc_idx", documents, threads, mark);
  if (place == doc_idx.size()) return;
  if (document < 0 || std::cmp_greater_equal(document, documents)) {
    refuse_document(place, document, documents);
  }
  throw OrderError("doc_idx[" + std::to_string(place) + "] is document " +
                   std::to_string(document) + ", which was there " + std::to_string(epochs) +
                   " times before, once for each epoch");
}

// Rows `begin` and on, the first of which has another before it, flat.
void check_piece(std::span<const std::int64_t> rows, std::uint64_t begin, std::uint64_t positions,
                 std::uint64_t sequence_length) {
  for (std::uint64_t i = 2; i < rows.size(); i += 2) {
    const std::int64_t position_before = rows[i - 2];
    const std::int64_t offset_before = rows[i - 1];
    const std::int64_t position = rows[i];
    const std::int64_t offset = rows[i + 1];
    const auto refuse = [&](const std::string& reason) {
      throw OrderError("sample_idx[" + std::to_string(begin + i / 2 - 1) + "] is " +
                       pair(position, offset) + reason);
    };
    if (position < 0 || std::cmp_greater_equal(position, positions)) {
      refuse(", but doc_idx has " + std::to_string(positions) + " positions");
    }
    if (offset < 0) refuse(", before the document's first token");
    if (begin + i / 2 == 1) {
      if (position != 0 || offset != 0) refuse(", not (0, 0)");
      continue;
    }
    // Within a document a sample begins a sequence length after another; in the first tokens of one
    // that a sample reaches from before, no farther than that.
    const std::uint64_t risen =
        static_cast<std::uint64_t>(offset) - static_cast<std::uint64_t>(offset_before);
    const bool follows =
        position == position_before
            ? offset > offset_before && risen == sequence_length
            : position > position_before && std::cmp_less_equal(offset, sequence_length);
    if (follows) continue;
    refuse(", which is not " + std::to_string(sequence_length) + " tokens after " +
           pair(position_before, offset_before));
  }
}

}  // namespace

void check_rows(const SampleIdx& rows, std::uint64_t positions, std::uint64_t sequence_length,
                std::size_t threads) {
  std::visit(
      [&](const auto& given) {
        share_items(given.size() / 2, threads, [&](std::uint64_t begin, std::uint64_t end) {
          const std::uint64_t before = begin == 0 ? 0 : 1;  // rows
          std::vector<std::int64_t> piece(2 * (end - begin + 1));
          const auto from = given.subspan(2 * (begin - before), 2 * (end - begin + before));
          read(std::as_bytes(given), "sample_idx", [&]() noexcept {
            std::copy(from.begin(), from.end(), piece.begin() + 2 * (begin == 0 ? 1 : 0));
          });
          check_piece(piece, begin, positions, sequence_length);
        });
      },
      rows);
}

void check_permutation(std::span<const std::uint32_t> values, std::size_t threads) {
  check_values(values, threads);
}

void check_permutation(std::span<const std::int64_t> values, std::size_t threads) {
  check_values(values, threads);
}

std::int32_t highest_document(std::span<const std::int32_t> doc_idx) {
  std::int32_t highest = -1;
  read(std::as_bytes(doc_idx), "doc_idx", [&]() noexcept {
    for (const std::int32_t document : doc_idx) highest = std::max(highest, document);
  });
  return highest;
}

void check_documents(std::span<const std::int32_t> doc_idx, std::uint64_t documents,
                     std::size_t threads) {
  if (documents == 0 || doc_idx.size() % documents != 0) {
    throw OrderError("doc_idx has " + std::to_string(doc_idx.size()) +
                     " positions, which is no multiple of " + std::to_string(documents) +
                     " documents");
  }
  const std::uint64_t epochs = doc_idx.size() / documents;
  if (epochs <= std::numeric_limits<std::uint8_t>::max()) {
    count_documents<std::uint8_t>(doc_idx, documents, epochs, threads);
  } else {
    count_documents<std::uint64_t>(doc_idx, documents, epochs, threads);
  }
}

}  // namespace pythia_fast
