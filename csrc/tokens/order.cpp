#include "tokens/order.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "io/errors.h"
#include "tokens/order_parts.h"

namespace pythia_fast {
namespace {

using namespace order;

constexpr std::uint64_t round_pieces = 16;
constexpr const char* lengths_name = "the documents' lengths";
constexpr std::uint64_t distance = 32;  // documents between asking for a length and using it

[[noreturn]] void refuse_length(std::uint64_t document, std::int64_t length) {
  throw OrderError("document " + std::to_string(document) + " has " + std::to_string(length) +
                   " tokens" + (length < 0 ? "" : ", with which there are 2^63 or more"));
}

void add(std::uint64_t& total, std::uint64_t more) {
  constexpr auto limit = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  if (more > limit - total) throw OrderError("the documents have 2^63 tokens or more in all");
  total += more;
}

// What became of some work on lengths that lie in a file: the first place that was wrong, and the
// sum of those before it.
struct Sum {
  std::uint64_t tokens = 0;
  std::uint64_t wrong = 0;  // the number of places where none is
  std::int64_t value = 0;   // there
};

// Adds up length(i) for i < count, each of which has a document; nothing in it is to be destroyed
// (io/guard.h).
template <typename Length>
Sum add_up(std::uint64_t count, const Length& length) noexcept {
  constexpr auto limit = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  Sum sum;
  for (; sum.wrong < count; ++sum.wrong) {
    sum.value = length(sum.wrong);
    if (sum.value < 0 || static_cast<std::uint64_t>(sum.value) > limit - sum.tokens) break;
    sum.tokens += static_cast<std::uint64_t>(sum.value);
  }
  return sum;
}

// The lengths of the documents at `position` and on, and their sum.
std::uint64_t look_up(const Lengths& lengths, std::span<const std::int32_t> documents,
                      std::uint64_t position, std::span<std::int64_t> result) {
  const std::uint64_t count = documents.size();
  read(std::as_bytes(documents), "doc_idx",
       [&]() noexcept { std::copy(documents.begin(), documents.end(), result.begin()); });
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::int64_t document = result[i];
    if (document < 0 || std::cmp_greater_equal(document, lengths.count)) {
      refuse_document(position + i, document, lengths.count);
    }
  }
  const auto at = [&](std::uint64_t i) { return static_cast<std::uint64_t>(result[i]); };
  Sum sum;
  std::uint64_t wrong_document = 0;
  read(lengths.bytes(), lengths_name, [&]() noexcept {
    for (std::uint64_t i = 0; i < std::min(count, distance); ++i) lengths.prefetch(at(i));
    sum = add_up(count, [&](std::uint64_t i) {
      if (i + distance < count) lengths.prefetch(at(i + distance));
      wrong_document = at(i);
      result[i] = lengths[wrong_document];
      return result[i];
    });
  });
  if (sum.wrong < count) refuse_length(wrong_document, sum.value);
  return sum.tokens;
}

}  // namespace

std::uint64_t total_tokens(const Lengths& lengths, std::size_t threads) {
  std::vector<std::uint64_t> sums(pieces(lengths.count));
  share_items(lengths.count, threads, [&](std::uint64_t begin, std::uint64_t end) {
    Sum sum;
    read(lengths.bytes(), lengths_name, [&]() noexcept {
      sum = add_up(end - begin, [&](std::uint64_t i) { return lengths[begin + i]; });
    });
    if (sum.wrong < end - begin) refuse_length(begin + sum.wrong, sum.value);
    sums[begin / piece_items] = sum.tokens;
  });
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) add(total, sum);
  return total;
}

Cutter::Cutter(const Lengths& lengths, std::span<const std::int32_t> doc_idx,
               std::uint64_t sequence_length)
    : lengths_(lengths), doc_idx_(doc_idx), sequence_length_(sequence_length) {
  if (sequence_length == 0 || sequence_length >= std::uint64_t{1} << 31) {
    throw ArgumentError("sequence_length must lie in [1, 2^31), got " +
                        std::to_string(sequence_length));
  }
}

// Calls take(row, position, offset), which looks at `array`, for each of the first `rows` rows that
// begins in the next `documents`, from several threads. OrderError where it says no.
template <typename Take>
void Cutter::advance(Bytes array, std::uint64_t rows, std::uint64_t documents, std::size_t threads,
                     const Take& take) {
  const std::uint64_t stop = position_ + std::min(documents, doc_idx_.size() - position_);
  found_.resize(std::min(stop - position_, round_pieces * piece_items));
  while (position_ < stop) {
    const std::uint64_t count = std::min<std::uint64_t>(stop - position_, found_.size());
    const std::span<std::int64_t> found = std::span(found_).first(count);
    // First the tokens before each piece, then its rows: lengths are looked up once, in any order.
    std::vector<std::uint64_t> before(pieces(count) + 1, tokens_);
    share_items(count, threads, [&](std::uint64_t begin, std::uint64_t end) {
      before[begin / piece_items + 1] =
          look_up(lengths_, doc_idx_.subspan(position_ + begin, end - begin), position_ + begin,
                  found.subspan(begin, end - begin));
    });
    for (std::size_t piece = 1; piece < before.size(); ++piece) {
      add(before[piece], before[piece - 1]);
    }
    share_items(count, threads, [&](std::uint64_t begin, std::uint64_t end) {
      std::uint64_t first = before[begin / piece_items];  // of the document's tokens
      std::uint64_t row = first / sequence_length_ + (first % sequence_length_ != 0 ? 1 : 0);
      std::int64_t position = 0;
      std::int64_t offset = 0;
      bool right = true;
      read(array, "sample_idx", [&]() noexcept {
        if (position_ + begin == 0 && rows > 0) right = take(0, 0, 0);
        if (row == 0) row = 1;
        std::uint64_t token = row * sequence_length_;
        for (std::uint64_t i = begin; right && i < end; ++i) {
          const std::uint64_t after = first + static_cast<std::uint64_t>(found[i]);
          position = static_cast<std::int64_t>(position_ + i);
          for (; token < after && row < rows; ++row, token += sequence_length_) {
            offset = static_cast<std::int64_t>(token - first);
            right = take(row, position, offset);
            if (!right) return;
          }
          first = after;
        }
      });
      if (right) return;
      if (position == 0 && offset == 0) row = 0;  // where no other row is
      throw OrderError("sample_idx[" + std::to_string(row) + "] must be " + pair(position, offset) +
                       " by the documents' lengths, and is not");
    });
    tokens_ = before.back();
    position_ += count;
  }
}

void Cutter::write(std::span<std::int64_t> rows, std::uint64_t documents, std::size_t threads) {
  advance({}, rows.size() / 2, documents, threads,
          [&](std::uint64_t row, std::int64_t position, std::int64_t offset) noexcept {
            rows[2 * row] = position;
            rows[2 * row + 1] = offset;
            return true;
          });
}

void Cutter::compare(const SampleIdx& rows, std::uint64_t documents, std::size_t threads) {
  std::visit(
      [&](const auto& given) {
        advance(std::as_bytes(given), given.size() / 2, documents, threads,
                [&](std::uint64_t row, std::int64_t position, std::int64_t offset) noexcept {
                  return given[2 * row] == position && given[2 * row + 1] == offset;
                });
      },
      rows);
}

}  // namespace pythia_fast
