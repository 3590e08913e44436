#include "tokens/token_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "io/convert.h"
#include "io/errors.h"
#include "io/workers.h"
#include "tokens/copy_ids.h"
#include "tokens/windows.h"

namespace pythia_fast {
namespace {

// From here on a result does not stay in the caches near a core, and is written past them: 0.60 ms
// instead of 0.95 for a step's 1024 rows of 2049, one core of a Milan.
constexpr std::uint64_t streamed_bytes = std::uint64_t{1} << 22;

// The position of the first id that is negative or not below `limit`, or `count`.
template <typename T>
std::uint64_t find(const std::byte* from, std::uint64_t count, std::uint64_t limit) {
  const auto id = [from](std::uint64_t i) { return load_id<T>(from + i * sizeof(T)); };
  T low = 0;
  T high = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    low = std::min(low, id(i));
    high = std::max(high, id(i));
  }
  const auto inside = [limit](T value) { return value >= 0 && std::cmp_less(value, limit); };
  if (inside(low) && inside(high)) return count;
  std::uint64_t i = 0;
  while (i < count && inside(id(i))) ++i;
  return i;
}

std::uint64_t cut(Columns columns, std::uint64_t length) {
  const std::uint64_t stop = std::min(columns.stop, length);
  return stop > columns.start ? stop - columns.start : 0;
}

// An id that was found, as it lies in the file.
struct Offender {
  bool any = false;
  std::size_t place = 0;     // in its window
  std::uint64_t offset = 0;  // in its range
  std::array<std::byte, 8> id{};
};

}  // namespace

TokenStore::TokenStore(std::string index_path, const std::vector<std::string>& bin_paths,
                       IndexCheck check)
    : index_(std::in_place, std::move(index_path), check), bin_(bin_paths), type_(index_->type()) {
  if (index_->bin_bytes() <= bin_.size()) return;
  const Mapping& last = bin_.files().back();
  std::string need = "the file ends here, but its index " + index_->path() + " needs " +
                     std::to_string(index_->bin_bytes()) + " bytes";
  if (bin_.files().size() > 1) {
    need += " in " + std::to_string(bin_.files().size()) +
            " shards: " + std::to_string(index_->bin_bytes() - bin_.size()) + " are missing";
  }
  throw TokenFileError(last.path(), need, last.bytes().size());
}

TokenStore::TokenStore(Bytes ids, IdType type, std::vector<std::int64_t> bounds,
                       std::shared_ptr<const void> owner)
    : bounds_(std::move(bounds)), owner_(std::move(owner)), bin_(ids), type_(type) {
  const std::uint64_t item = item_size(type);
  if (bounds_.empty() || bounds_.front() != 0 || !std::is_sorted(bounds_.begin(), bounds_.end()) ||
      static_cast<std::uint64_t>(bounds_.back()) != ids.size() / item) {
    throw ArgumentError("bounds must rise from 0 to the number of ids, " +
                        std::to_string(ids.size() / item));
  }
  if (reinterpret_cast<std::uintptr_t>(ids.data()) % item != 0) {
    throw ArgumentError("the ids are not aligned to their " + std::to_string(item) + " bytes");
  }
}

std::uint64_t TokenStore::rows() const { return index_ ? index_->rows() : bounds_.size() - 1; }

std::optional<std::uint64_t> TokenStore::documents() const {
  if (!index_) return std::nullopt;
  return index_->documents();
}

std::uint64_t TokenStore::bin_bytes() const { return index_ ? index_->bin_bytes() : bin_.size(); }

void TokenStore::verify(std::size_t threads) const {
  if (index_) index_->verify(threads);
}

void TokenStore::require_rows(std::span<const std::int64_t> rows) const {
  for (const std::int64_t row : rows) {
    if (row < 0 || static_cast<std::uint64_t>(row) >= this->rows()) {
      throw RowIndexError("row " + std::to_string(row) + " of " + std::to_string(this->rows()));
    }
  }
}

void TokenStore::locate(std::span<const std::int64_t> rows, std::span<Row> result) const {
  require_rows(rows);
  if (index_) {
    index_->locate(rows, result);
    index_->require_unchanged();
    return;
  }
  const std::uint64_t item = item_size(type_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<std::size_t>(rows[i]);
    const auto begin = static_cast<std::uint64_t>(bounds_[row]);
    result[i] = {begin * item, static_cast<std::uint64_t>(bounds_[row + 1]) - begin};
  }
}

void TokenStore::lengths(std::span<const std::int64_t> rows, std::span<std::int64_t> result) const {
  if (rows.size() != result.size()) {
    throw ArgumentError("lengths of " + std::to_string(rows.size()) + " rows do not fit " +
                        std::to_string(result.size()) + " places");
  }
  for (const Mapping& file : bin_.files()) file.require_unchanged();
  std::array<Row, 1024> some;
  for (std::size_t begin = 0; begin < rows.size(); begin += some.size()) {
    const std::size_t number = std::min(some.size(), rows.size() - begin);
    locate(rows.subspan(begin, number), some);
    for (std::size_t i = 0; i < number; ++i) {
      result[begin + i] = static_cast<std::int64_t>(some[i].length);
    }
  }
}

template <typename RowOf, typename PartOf>
void TokenStore::copy_parts(std::uint64_t number, RowOf row_of, PartOf part_of, IdType type,
                            bool streamed, std::size_t threads) const {
  const CopyIds copy_run = copy_ids(type_, type, streamed);
  const std::uint64_t item = item_size(type_);
  const std::uint64_t to_item = item_size(type);
  const auto wanted_of = [&](std::uint64_t begin, std::span<Wanted> wanted) {
    std::array<std::int64_t, 256> rows{};
    std::array<Row, 256> located{};
    for (std::size_t i = 0; i < wanted.size(); ++i) rows[i] = row_of(begin + i);
    locate(std::span(rows).first(wanted.size()), located);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const Part part = part_of(begin + i, located[i].length);
      wanted[i] = {{located[i].offset + part.start * item, part.count},
                   part.to,
                   part.zeros,
                   part.start,
                   begin + i};
    }
  };
  for_windows(Windows(bin_, item, to_item, number, wanted_of), [&](const Window& window) {
    share(window.pieces(), threads, [&](std::size_t piece) {
      Offender wrong;
      bin_.read([&]() noexcept {
        for (std::size_t i = window.begins[piece]; i < window.begins[piece + 1]; ++i) {
          std::byte* to = window.wanted[i].to;
          std::uint64_t done = 0;
          bin_.visit(window.ranges[i], item, [&](const std::byte* from, std::uint64_t count) {
            const std::uint64_t fitting = copy_run(from, to + done * to_item, count);
            done += fitting;
            if (fitting == count) return true;
            wrong.any = true;
            wrong.place = i;
            wrong.offset = done;
            std::memcpy(wrong.id.data(), from + fitting * item, item);
            return false;
          });
          if (wrong.any) return;
          const std::uint64_t zeros = window.wanted[i].zeros;
          if (zeros > 0) std::memset(to + done * to_item, 0, zeros * to_item);
        }
      });
      if (streamed) finish_stores();
      if (!wrong.any) return;
      const Wanted& in = window.wanted[wrong.place];
      const std::string id = with_type(
          type_, [&]<typename T>(T) { return std::to_string(load_id<T>(wrong.id.data())); });
      throw ArgumentError("row " + std::to_string(row_of(in.position)) + " holds id " + id +
                          " at offset " + std::to_string(in.start + wrong.offset) +
                          ", which does not fit " + name(type));
    });
    return true;
  });
}

void TokenStore::copy(std::span<const Part> parts, IdType type, std::size_t threads) const {
  std::uint64_t ids = 0;
  for (const Part& part : parts) ids += part.count + part.zeros;
  const auto row_of = [&](std::uint64_t i) { return parts[i].row; };
  const auto part_of = [&](std::uint64_t i, std::uint64_t length) {
    const Part& part = parts[i];
    if (part.start <= length && part.count <= length - part.start) return part;
    throw ArgumentError("row " + std::to_string(part.row) + " has " + std::to_string(length) +
                        " tokens, and not " + std::to_string(part.count) + " from " +
                        std::to_string(part.start) + " on");
  };
  copy_parts(parts.size(), row_of, part_of, type, ids * item_size(type) >= streamed_bytes, threads);
}

void TokenStore::gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
                        std::size_t threads) const {
  if (rows.size() != result.rows) {
    throw ArgumentError(std::to_string(rows.size()) + " rows do not fit a buffer of " +
                        std::to_string(result.rows));
  }
  require_rows(rows);
  const auto row_of = [&](std::uint64_t i) { return rows[i]; };
  const auto part_of = [&](std::uint64_t i, std::uint64_t length) {
    const std::uint64_t count = cut(columns, length);
    if (count > result.columns) {
      throw ArgumentError("row " + std::to_string(rows[i]) + " has " + std::to_string(count) +
                          " tokens, which do not fit a buffer with " +
                          std::to_string(result.columns) + " columns");
    }
    std::byte* to = result.begin + static_cast<std::int64_t>(i) * result.row_bytes;
    return Part{rows[i], count > 0 ? columns.start : 0, count, to, result.columns - count};
  };
  const std::uint64_t bytes = result.rows * result.columns * item_size(result.type);
  copy_parts(rows.size(), row_of, part_of, result.type, bytes >= streamed_bytes, threads);
}

std::optional<Outside> TokenStore::find_outside(std::span<const std::int64_t> rows,
                                                std::uint64_t limit, std::size_t threads) const {
  require_rows(rows);
  const std::uint64_t item = item_size(type_);
  std::optional<Outside> result;
  const auto wanted_of = [&](std::uint64_t begin, std::span<Wanted> wanted) {
    std::array<Row, 256> located{};
    locate(rows.subspan(begin, wanted.size()), located);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      wanted[i] = {{located[i].offset, located[i].length}, nullptr, 0, 0, begin + i};
    }
  };
  for_windows(Windows(bin_, item, 0, rows.size(), wanted_of), [&](const Window& window) {
    std::vector<Offender> found(window.pieces());
    std::atomic<std::size_t> first{window.pieces()};  // the lowest piece that holds one
    with_type(type_, [&]<typename T>(T) {
      share(window.pieces(), threads, [&](std::size_t piece) {
        if (first.load(std::memory_order_relaxed) < piece) return;
        Offender& wrong = found[piece];
        bin_.read([&]() noexcept {
          for (std::size_t i = window.begins[piece]; i < window.begins[piece + 1]; ++i) {
            std::uint64_t done = 0;
            bin_.visit(window.ranges[i], item, [&](const std::byte* from, std::uint64_t count) {
              const std::uint64_t inside = find<T>(from, count, limit);
              done += inside;
              if (inside == count) return true;
              wrong.any = true;
              wrong.place = i;
              wrong.offset = done;
              std::memcpy(wrong.id.data(), from + inside * item, item);
              return false;
            });
            if (wrong.any) return;
          }
        });
        std::size_t known = first.load();
        while (wrong.any && piece < known && !first.compare_exchange_weak(known, piece)) {
        }
      });
      if (first.load() == window.pieces()) return;
      const Offender& wrong = found[first.load()];
      const Wanted& in = window.wanted[wrong.place];
      using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
      result = Outside{in.position, in.start + wrong.offset,
                       static_cast<Wide>(load_id<T>(wrong.id.data()))};
    });
    return !result;
  });
  return result;
}

}  // namespace pythia_fast
