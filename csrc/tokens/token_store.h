// Rows of token ids, in an .idx/.bin pair or in memory, gathered into the caller's buffers.
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
#include "tokens/id_type.h"
#include "tokens/token_index.h"

namespace pythia_fast {

// Columns [start, stop) of a row, cut to what the row has.
struct Columns {
  std::uint64_t start;
  std::uint64_t stop;
};

// A caller's matrix [rows, columns] of i64, i32 or u16, whose rows begin `row_bytes` apart.
struct Matrix {
  std::byte* begin;
  IdType type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::int64_t row_bytes;
};

// The first id that is negative or not below the limit.
struct Outside {
  std::uint64_t position;  // in the rows asked for
  std::uint64_t offset;    // in the row
  std::variant<std::int64_t, std::uint64_t> id;
};

class TokenStore {
 public:
  // An .idx/.bin pair, both mapped read-only: TokenFileError where they do not fit together.
  TokenStore(std::string index_path, std::string bin_path);

  // Memory that `owner` keeps alive: row i is ids [bounds[i], bounds[i + 1]).
  TokenStore(std::span<const std::byte> ids, IdType type, std::vector<std::int64_t> bounds,
             std::shared_ptr<const void> owner);

  std::uint64_t rows() const;
  std::optional<std::uint64_t> documents() const;  // none in memory
  IdType type() const { return type_; }

  // Tokens of each of `rows`.
  void lengths(std::span<const std::int64_t> rows, std::span<std::int64_t> result) const;

  // Copies `columns` of each of `rows` into the matrix, each value widened or, where it fits,
  // narrowed, and fills the right of shorter rows with 0. ArgumentError where a row is longer than
  // the matrix is wide or an id does not fit; TruncatedFileError if a file has shrunk.
  void gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
              std::size_t threads) const;

  std::optional<Outside> find_outside(std::span<const std::int64_t> rows, std::uint64_t limit,
                                      std::size_t threads) const;

 private:
  struct Ids {
    const std::byte* begin;
    std::uint64_t length;
  };
  // The ids of one row; RowIndexError, or TokenFileError if the index has been changed since.
  Ids ids(std::int64_t row) const;
  void require_unchanged() const;

  std::optional<TokenIndex> index_;  // of a pair
  std::optional<Mapping> bin_;
  std::vector<std::int64_t> bounds_;  // of memory
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
  IdType type_;
};

}  // namespace pythia_fast
