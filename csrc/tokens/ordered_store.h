// Raw token data read in the order of training: row i is the i-th sample, stitched from the
// documents that it is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "io/file.h"
#include "tokens/order.h"
#include "tokens/token_store.h"

namespace pythia_fast {

// The three arrays of an order (tokens/order.h), maybe mapped from files.
struct OrderArrays {
  std::span<const std::int32_t> doc_idx;
  SampleIdx sample_idx;
  std::variant<std::span<const std::uint32_t>, std::span<const std::int64_t>> shuffle_idx;
};

class OrderedStore {
 public:
  // `owner` keeps the arrays alive; `files` are those that they are mapped from, or none.
  OrderedStore(std::shared_ptr<const TokenStore> documents, const OrderArrays& arrays,
               std::uint64_t sequence_length, const std::vector<std::string>& files,
               std::shared_ptr<const void> owner);

  std::uint64_t rows() const;
  std::uint64_t row_bytes() const { return rows() * tokens_ * item_size(type()); }  // of all rows
  IdType type() const { return documents_->type(); }

  // As those of TokenStore. What is used of the order is checked: OrderError where a sample does
  // not have a sequence length and one more tokens, or does not lie in its documents.
  void lengths(std::span<const std::int64_t> rows, std::span<std::int64_t> result) const;
  void gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
              std::size_t threads) const;
  std::optional<Outside> find_outside(std::span<const std::int64_t> rows, std::uint64_t limit,
                                      std::size_t threads) const;
  void verify(std::size_t threads) const { documents_->verify(threads); }  // not of the order

 private:
  // A row's sample, where it begins, and where its last token lies: positions in doc_idx.
  struct Sample {
    std::int64_t number;
    std::int64_t position;
    std::int64_t offset;
    std::int64_t last_position;
    std::int64_t last_offset;
  };
  class Stitching;

  template <typename Work>
  void read(Work work) const;
  std::vector<Sample> samples_of(std::span<const std::int64_t> rows) const;
  void require_rows(std::span<const std::int64_t> rows) const;

  std::shared_ptr<const TokenStore> documents_;
  OrderArrays arrays_;
  std::uint64_t tokens_;  // of a sample
  std::vector<File> files_;
  std::shared_ptr<const void> owner_;
};

}  // namespace pythia_fast
