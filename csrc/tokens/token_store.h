// Rows of token ids, in an .idx and its .bin or in memory, copied into the caller's buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "tokens/bin.h"
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

// Ids [start, start + count) of a row, and where they go.
struct Part {
  std::int64_t row;
  std::uint64_t start;
  std::uint64_t count;
  std::byte* to;            // `count` ids of the output's type, aligned to it
  std::uint64_t zeros = 0;  // that follow them there
};

// The first id that is negative or not below the limit.
struct Outside {
  std::uint64_t position;  // in the rows asked for
  std::uint64_t offset;    // in the row
  std::variant<std::int64_t, std::uint64_t> id;
};

class TokenStore {
 public:
  // An .idx, and the files whose concatenation is its .bin, mapped read-only: TokenFileError where
  // they do not fit together.
  TokenStore(std::string index_path, const std::vector<std::string>& bin_paths,
             IndexCheck check = IndexCheck::by_size);

  // Memory that `owner` keeps alive: row i is ids [bounds[i], bounds[i + 1]).
  TokenStore(Bytes ids, IdType type, std::vector<std::int64_t> bounds,
             std::shared_ptr<const void> owner);

  std::uint64_t rows() const;
  std::optional<std::uint64_t> documents() const;  // none in memory
  std::uint64_t bin_bytes() const;                 // that the rows need
  IdType type() const { return type_; }

  // All below can find that a file has shrunk or cannot be read: TruncatedFileError, ReadError.

  // Where each of `rows` lies; RowIndexError for one that is not there.
  void locate(std::span<const std::int64_t> rows, std::span<Row> result) const;

  // Tokens of each of `rows`.
  void lengths(std::span<const std::int64_t> rows, std::span<std::int64_t> result) const;

  // Copies parts of rows to wherever each is to go, as i64, i32 or u16, a bounded number of bytes
  // at a time, with what comes next asked for meanwhile. ArgumentError where a row does not have
  // the part or an id does not fit.
  void copy(std::span<const Part> parts, IdType type, std::size_t threads) const;

  // Copies `columns` of each of `rows` into the matrix, each value widened or, where it fits,
  // narrowed, and fills the right of shorter rows with 0. ArgumentError where a row is longer than
  // the matrix is wide or an id does not fit.
  void gather(std::span<const std::int64_t> rows, Columns columns, const Matrix& result,
              std::size_t threads) const;

  std::optional<Outside> find_outside(std::span<const std::int64_t> rows, std::uint64_t limit,
                                      std::size_t threads) const;

  // Checks all of the index: TokenFileError for the first row or document that is wrong.
  void verify(std::size_t threads) const;

 private:
  void require_rows(std::span<const std::int64_t> rows) const;
  template <typename RowOf, typename PartOf>
  void copy_parts(std::uint64_t number, RowOf row_of, PartOf part_of, IdType type, bool streamed,
                  std::size_t threads) const;

  std::optional<TokenIndex> index_;   // of files
  std::vector<std::int64_t> bounds_;  // of memory
  std::shared_ptr<const void> owner_;
  Bin bin_;
  IdType type_;
};

}  // namespace pythia_fast
