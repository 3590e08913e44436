#include "tokens/token_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "io/errors.h"
#include "io/workers.h"

namespace pythia_fast {
namespace {

// Bytes of one piece of work: below this a second thread costs more than it brings.
constexpr std::uint64_t piece_bytes = std::uint64_t{1} << 18;

struct Pieces {
  Pieces(std::uint64_t rows, std::uint64_t bytes_a_row)
      : each(std::max<std::uint64_t>(1, piece_bytes / std::max<std::uint64_t>(1, bytes_a_row))),
        number(rows / each + (rows % each != 0 ? 1 : 0)) {}
  std::uint64_t each;    // rows of a piece
  std::uint64_t number;  // of pieces
};

template <typename To, typename From>
constexpr bool holds_all() {
  using Limits = std::numeric_limits<From>;
  return std::in_range<To>(Limits::min()) && std::in_range<To>(Limits::max());
}

// Copies `count` ids; returns the position of the first that `To` cannot hold, or `count`.
template <typename To, typename From>
std::uint64_t copy(const From* from, To* to, std::uint64_t count) {
  if constexpr (std::is_same_v<To, From>) {
    if (count > 0) std::memcpy(to, from, count * sizeof(To));
    return count;
  } else if constexpr (holds_all<To, From>()) {
    for (std::uint64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
    return count;
  } else {
    bool fits = true;  // no early exit: the loop stays one that compilers vectorise
    for (std::uint64_t i = 0; i < count; ++i) {
      fits &= std::in_range<To>(from[i]);
      to[i] = static_cast<To>(from[i]);
    }
    if (fits) return count;
    return static_cast<std::uint64_t>(
        std::find_if_not(from, from + count, [](From id) { return std::in_range<To>(id); }) - from);
  }
}

// The position of the first id that is negative or not below `limit`, or `count`.
template <typename T>
std::uint64_t find(const T* ids, std::uint64_t count, std::uint64_t limit) {
  T low = 0;
  T high = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    low = std::min(low, ids[i]);
    high = std::max(high, ids[i]);
  }
  const auto inside = [limit](T id) { return id >= 0 && std::cmp_less(id, limit); };
  if (inside(low) && inside(high)) return count;
  return static_cast<std::uint64_t>(std::find_if_not(ids, ids + count, inside) - ids);
}

template <typename Visit>
auto with_output_type(IdType type, Visit visit) {
  if (type == IdType::i64) return visit(std::int64_t{});
  if (type == IdType::i32) return visit(std::int32_t{});
  if (type == IdType::u16) return visit(std::uint16_t{});
  throw ArgumentError(std::string("ids are gathered as int64, int32 or uint16, not as ") +
                      name(type));
}

std::uint64_t cut(Columns columns, std::uint64_t length) {
  const std::uint64_t stop = std::min(columns.stop, length);
  return stop > columns.start ? stop - columns.start : 0;
}

}  // namespace

TokenStore::TokenStore(std::string index_path, std::string bin_path)
    : index_(std::in_place, std::move(index_path)), bin_(std::in_place, std::move(bin_path)) {
  type_ = index_->type();
  bytes_ = bin_->bytes();
  if (index_->bin_bytes() > bytes_.size()) {
    throw TokenFileError(bin_->path(),
                         "the file ends here, but its index " + index_->path() + " needs " +
                             std::to_string(index_->bin_bytes()) + " bytes",
                         bytes_.size());
  }
}

TokenStore::TokenStore(std::span<const std::byte> ids, IdType type,
                       std::vector<std::int64_t> bounds, std::shared_ptr<const void> owner)
    : bounds_(std::move(bounds)), owner_(std::move(owner)), bytes_(ids), type_(type) {
  const std::uint64_t item = item_size(type);
  if (bounds_.empty() || bounds_.front() != 0 || !std::is_sorted(bounds_.begin(), bounds_.end()) ||
      static_cast<std::uint64_t>(bounds_.back()) != bytes_.size() / item) {
    throw ArgumentError("bounds must rise from 0 to the number of ids, " +
                        std::to_string(bytes_.size() / item));
  }
  if (reinterpret_cast<std::uintptr_t>(bytes_.data()) % item != 0) {
    throw ArgumentError("the ids are not aligned to their " + std::to_string(item) + " bytes");
  }
}

std::uint64_t TokenStore::rows() const { return index_ ? index_->rows() : bounds_.size() - 1; }

std::optional<std::uint64_t> TokenStore::documents() const {
  if (!index_) return std::nullopt;
  return index_->documents();
}

void TokenStore::require_unchanged() const {
  if (!index_) return;
  index_->require_unchanged();
  bin_->require_unchanged();
}

TokenStore::Ids TokenStore::ids(std::int64_t row) const {
  if (row < 0 || static_cast<std::uint64_t>(row) >= rows()) {
    throw RowIndexError("row " + std::to_string(row) + " of " + std::to_string(rows()));
  }
  const auto at = static_cast<std::uint64_t>(row);
  const std::uint64_t item = item_size(type_);
  if (!index_) {
    const auto begin = static_cast<std::uint64_t>(bounds_[at]);
    return {bytes_.data() + begin * item, static_cast<std::uint64_t>(bounds_[at + 1]) - begin};
  }
  const Row found = index_->row(at);
  if (found.offset > bytes_.size() || found.length > (bytes_.size() - found.offset) / item ||
      found.offset % item != 0) {
    throw TokenFileError(index_->path(),
                         "sequence " + std::to_string(row) +
                             " does not lie in the .bin: the index has changed since it was opened",
                         std::nullopt);
  }
  return {bytes_.data() + found.offset, found.length};
}

void TokenStore::lengths(std::span<const std::int64_t> rows, std::span<std::int64_t> result) const {
  require_unchanged();
  if (rows.size() != result.size()) {
    throw ArgumentError("lengths of " + std::to_string(rows.size()) + " rows do not fit " +
                        std::to_string(result.size()) + " places");
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    result[i] = static_cast<std::int64_t>(ids(rows[i]).length);
  }
}

void TokenStore::gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
                        std::size_t threads) const {
  require_unchanged();
  if (rows.size() != result.rows) {
    throw ArgumentError(std::to_string(rows.size()) + " rows do not fit a buffer of " +
                        std::to_string(result.rows));
  }
  for (const std::int64_t row : rows) {
    const std::uint64_t length = cut(columns, ids(row).length);
    if (length > result.columns) {
      throw ArgumentError("row " + std::to_string(row) + " has " + std::to_string(length) +
                          " tokens, which do not fit a buffer with " +
                          std::to_string(result.columns) + " columns");
    }
  }
  with_output_type(result.type, [&]<typename To>(To) {
    with_type(type_, [&]<typename From>(From) {
      const Pieces pieces(rows.size(), result.columns * sizeof(To));
      share(pieces.number, threads, [&](std::size_t piece) {
        const std::uint64_t end = std::min<std::uint64_t>(rows.size(), (piece + 1) * pieces.each);
        for (std::uint64_t i = piece * pieces.each; i < end; ++i) {
          const Ids source = ids(rows[i]);
          const std::uint64_t length = std::min(cut(columns, source.length), result.columns);
          const auto* from = reinterpret_cast<const From*>(source.begin) +
                             (length > 0 ? columns.start : std::uint64_t{0});
          auto* to =
              reinterpret_cast<To*>(result.begin + static_cast<std::int64_t>(i) * result.row_bytes);
          const std::uint64_t wrong = copy(from, to, length);
          if (wrong != length) {
            throw ArgumentError("row " + std::to_string(rows[i]) + " holds id " +
                                std::to_string(from[wrong]) + " at offset " +
                                std::to_string(columns.start + wrong) + ", which does not fit " +
                                name(result.type));
          }
          std::fill(to + length, to + result.columns, To{0});
        }
      });
    });
  });
}

std::optional<Outside> TokenStore::find_outside(std::span<const std::int64_t> rows,
                                                std::uint64_t limit, std::size_t threads) const {
  require_unchanged();
  std::uint64_t total = 0;
  for (const std::int64_t row : rows) total += ids(row).length;
  const std::uint64_t mean = rows.empty() ? 0 : total / rows.size();
  const Pieces pieces(rows.size(), mean * item_size(type_));
  std::vector<std::optional<Outside>> found(pieces.number);
  std::atomic<std::uint64_t> first{pieces.number};  // the lowest piece that holds one
  with_type(type_, [&]<typename T>(T) {
    share(pieces.number, threads, [&](std::size_t piece) {
      if (first.load(std::memory_order_relaxed) < piece) return;
      const std::uint64_t end = std::min<std::uint64_t>(rows.size(), (piece + 1) * pieces.each);
      for (std::uint64_t i = piece * pieces.each; i < end; ++i) {
        const Ids source = ids(rows[i]);
        const auto* values = reinterpret_cast<const T*>(source.begin);
        const std::uint64_t wrong = find(values, source.length, limit);
        if (wrong == source.length) continue;
        using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
        found[piece] = Outside{i, wrong, static_cast<Wide>(values[wrong])};
        std::uint64_t known = first.load();
        while (piece < known && !first.compare_exchange_weak(known, piece)) {
        }
        return;
      }
    });
  });
  const std::uint64_t piece = first.load();
  return piece < pieces.number ? found[piece] : std::nullopt;
}

}  // namespace pythia_fast
