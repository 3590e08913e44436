#include "tokens/ordered_store.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "io/errors.h"
#include "io/guard.h"

namespace pythia_fast {
namespace {

constexpr std::size_t most_pieces = std::size_t{1} << 16;  // that are held: 2 MB of documents
constexpr std::uint64_t scanned_bytes = std::uint64_t{1} << 23;

[[noreturn]] void refuse(std::int64_t sample, const std::string& reason) {
  throw OrderError("sample_idx[" + std::to_string(sample) + "]: " + reason);
}

}  // namespace

OrderedStore::OrderedStore(std::shared_ptr<const TokenStore> documents, const OrderArrays& arrays,
                           std::uint64_t sequence_length, const std::vector<std::string>& files,
                           std::shared_ptr<const void> owner)
    : documents_(std::move(documents)),
      arrays_(arrays),
      tokens_(sequence_length + 1),
      owner_(std::move(owner)) {
  if (sequence_length == 0 || sequence_length >= std::uint64_t{1} << 31) {
    throw ArgumentError("sequence_length must lie in [1, 2^31), got " +
                        std::to_string(sequence_length));
  }
  const std::size_t numbers =
      std::visit([](const auto& given) { return given.size(); }, arrays.sample_idx);
  if (numbers != 2 * (rows() + 1)) {
    throw OrderError(std::to_string(rows()) + " samples need one row more in sample_idx, not " +
                     std::to_string(numbers / 2));
  }
  for (const std::string& path : files) files_.emplace_back(path);
}

std::uint64_t OrderedStore::rows() const {
  return std::visit([](const auto& given) { return std::uint64_t{given.size()}; },
                    arrays_.shuffle_idx);
}

// Calls work(), which looks at the arrays, is noexcept and leaves nothing to destroy (io/guard.h).
template <typename Work>
void OrderedStore::read(Work work) const {
  const auto bytes = [](const auto& array) { return std::as_bytes(std::span(array)); };
  const std::array<Bytes, 3> ranges{bytes(arrays_.doc_idx), std::visit(bytes, arrays_.sample_idx),
                                    std::visit(bytes, arrays_.shuffle_idx)};
  const std::byte* lost = guarded(ranges, work);
  for (const File& file : files_) {
    const std::uint64_t now = file.current_size();
    if (now >= file.size()) continue;
    throw TruncatedFileError(file.path(),
                             "the file ends here now; it had " + std::to_string(file.size()) +
                                 " bytes when it was opened",
                             now);
  }
  if (lost != nullptr) throw ReadError(files_.empty() ? "an order" : files_.front().path(), EIO);
}

void OrderedStore::require_rows(std::span<const std::int64_t> rows) const {
  for (const std::int64_t row : rows) {
    if (row < 0 || std::cmp_greater_equal(row, this->rows())) {
      throw RowIndexError("row " + std::to_string(row) + " of " + std::to_string(this->rows()));
    }
  }
}

std::vector<OrderedStore::Sample> OrderedStore::samples_of(
    std::span<const std::int64_t> rows) const {
  require_rows(rows);
  const std::uint64_t count = this->rows();
  std::vector<Sample> samples(rows.size());
  read([&]() noexcept {
    std::visit(
        [&](const auto& shuffle_idx, const auto& sample_idx) {
          for (std::size_t i = 0; i < rows.size(); ++i) {
            const auto number = shuffle_idx[static_cast<std::uint64_t>(rows[i])];
            samples[i].number = static_cast<std::int64_t>(number);
            if (std::cmp_less(number, 0) || std::cmp_greater_equal(number, count)) continue;
            const auto* row = sample_idx.data() + 2 * static_cast<std::uint64_t>(number);
            samples[i] = {samples[i].number, row[0], row[1], row[2], row[3]};
          }
        },
        arrays_.shuffle_idx, arrays_.sample_idx);
  });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Sample& sample = samples[i];
    if (sample.number < 0 || std::cmp_greater_equal(sample.number, count)) {
      throw OrderError("shuffle_idx[" + std::to_string(rows[i]) + "] is sample " +
                       std::to_string(sample.number) + " of " + std::to_string(count));
    }
    if (sample.position < 0 || sample.offset < 0 || sample.last_offset < 0 ||
        sample.last_position < sample.position ||
        std::cmp_greater_equal(sample.last_position, arrays_.doc_idx.size())) {
      refuse(sample.number, "the sample from (" + std::to_string(sample.position) + ", " +
                                std::to_string(sample.offset) + ") to (" +
                                std::to_string(sample.last_position) + ", " +
                                std::to_string(sample.last_offset) + ") does not lie in the " +
                                std::to_string(arrays_.doc_idx.size()) + " positions of doc_idx");
    }
  }
  return samples;
}

void OrderedStore::lengths(std::span<const std::int64_t> rows,
                           std::span<std::int64_t> result) const {
  if (rows.size() != result.size()) {
    throw ArgumentError("lengths of " + std::to_string(rows.size()) + " rows do not fit " +
                        std::to_string(result.size()) + " places");
  }
  require_rows(rows);
  std::fill(result.begin(), result.end(), static_cast<std::int64_t>(tokens_));
}

// Turns samples into parts of documents, a bounded number at a time.
class OrderedStore::Stitching {
 public:
  Stitching(const OrderedStore& store, Columns columns, const Matrix& result, std::size_t threads)
      : store_(store),
        start_(std::min(columns.start, store.tokens_)),
        stop_(std::max(start_, std::min(columns.stop, store.tokens_))),
        result_(result),
        threads_(threads) {
    if (stop_ - start_ > result.columns) {
      throw ArgumentError("samples have " + std::to_string(stop_ - start_) +
                          " of these columns, which do not fit a buffer with " +
                          std::to_string(result.columns));
    }
  }

  void run(std::span<const Sample> samples) {
    samples_ = samples;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      for (std::int64_t at = samples[i].position; at <= samples[i].last_position; ++at) {
        pieces_.push_back({i, at});
        if (pieces_.size() == most_pieces) flush();
      }
    }
    flush();
  }

 private:
  struct Piece {
    std::size_t row;
    std::int64_t position;
  };

  void flush() {
    documents_.resize(pieces_.size());
    lengths_.resize(pieces_.size());
    store_.read([&]() noexcept {
      for (std::size_t i = 0; i < pieces_.size(); ++i) {
        documents_[i] = store_.arrays_.doc_idx[static_cast<std::size_t>(pieces_[i].position)];
      }
    });
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const std::int64_t document = documents_[i];
      if (document >= 0 && std::cmp_less(document, store_.documents_->rows())) continue;
      throw OrderError("doc_idx[" + std::to_string(pieces_[i].position) + "] is document " +
                       std::to_string(document) + " of " +
                       std::to_string(store_.documents_->rows()));
    }
    store_.documents_->lengths(documents_, lengths_);
    parts_.clear();
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      take(pieces_[i], documents_[i], static_cast<std::uint64_t>(lengths_[i]));
    }
    store_.documents_->copy(parts_, result_.type, threads_);
    pieces_.clear();
  }

  void take(const Piece& piece, std::int64_t document, std::uint64_t length) {
    const Sample& sample = samples_[piece.row];
    const bool last = piece.position == sample.last_position;
    const auto begin = piece.position == sample.position ? static_cast<std::uint64_t>(sample.offset)
                                                         : std::uint64_t{0};
    const auto end = last ? static_cast<std::uint64_t>(sample.last_offset) + 1 : length;
    if (begin > end || end > length || end - begin > store_.tokens_ - done_) {
      refuse(sample.number, "tokens " + std::to_string(begin) + " to " + std::to_string(end) +
                                " of document " + std::to_string(document) + ", which has " +
                                std::to_string(length) + ", are no part of a sample of " +
                                std::to_string(store_.tokens_) +
                                ": this is not the order of this data");
    }
    const std::uint64_t from = std::clamp(done_, start_, stop_);
    const std::uint64_t done = done_ + (end - begin);
    const std::uint64_t to = std::clamp(done, start_, stop_);
    const std::uint64_t item = item_size(result_.type);
    const std::uint64_t zeros = last ? result_.columns - (stop_ - start_) : 0;
    if (to > from || zeros > 0) {
      std::byte* row = result_.begin + static_cast<std::int64_t>(piece.row) * result_.row_bytes;
      // Where no column is of this document, nothing is asked of it.
      const std::uint64_t start = to > from ? begin + (from - done_) : 0;
      parts_.push_back({document, start, to - from, row + (from - start_) * item, zeros});
    }
    done_ = last ? 0 : done;
    if (last && done != store_.tokens_) {
      refuse(sample.number, "the sample has " + std::to_string(done) + " tokens, not " +
                                std::to_string(store_.tokens_) +
                                ": this is not the order of this data");
    }
  }

  const OrderedStore& store_;
  const std::uint64_t start_;
  const std::uint64_t stop_;
  const Matrix& result_;
  const std::size_t threads_;
  std::span<const Sample> samples_;
  std::vector<Piece> pieces_;
  std::vector<std::int64_t> documents_;
  std::vector<std::int64_t> lengths_;
  std::vector<Part> parts_;
  std::uint64_t done_ = 0;  // tokens of the sample in hand
};

void OrderedStore::gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
                          std::size_t threads) const {
  if (rows.size() != result.rows) {
    throw ArgumentError(std::to_string(rows.size()) + " rows do not fit a buffer of " +
                        std::to_string(result.rows));
  }
  Stitching(*this, columns, result, threads).run(samples_of(rows));
}

std::optional<Outside> OrderedStore::find_outside(std::span<const std::int64_t> rows,
                                                  std::uint64_t limit, std::size_t threads) const {
  require_rows(rows);
  const std::uint64_t step = std::max<std::uint64_t>(1, scanned_bytes / (8 * tokens_));
  std::vector<std::int64_t> ids(std::min<std::uint64_t>(step, rows.size()) * tokens_);
  for (std::uint64_t begin = 0; begin < rows.size(); begin += step) {
    const auto some = rows.subspan(begin, std::min<std::uint64_t>(step, rows.size() - begin));
    const Matrix matrix{reinterpret_cast<std::byte*>(ids.data()), IdType::i64, some.size(), tokens_,
                        static_cast<std::int64_t>(8 * tokens_)};
    gather(some, {0, tokens_}, matrix, threads);
    const auto end = ids.begin() + static_cast<std::ptrdiff_t>(some.size() * tokens_);
    const auto found = std::find_if(ids.begin(), end, [limit](std::int64_t id) {
      return id < 0 || std::cmp_greater_equal(id, limit);
    });
    if (found == end) continue;
    const auto place = static_cast<std::uint64_t>(found - ids.begin());
    return Outside{begin + place / tokens_, place % tokens_, *found};
  }
  return std::nullopt;
}

}  // namespace pythia_fast
