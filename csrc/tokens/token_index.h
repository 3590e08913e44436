// The .idx file of Megatron-LM and GPT-NeoX (MMIDIDX, version 1), mapped read-only.
//
//   byte 0   "MMIDIDX\0\0"          9   u64 version, 1          17   u8 dtype code
//       18   u64 L sequences       26   u64 D documents
//       34   i32 sizes[L] in tokens, i64 pointers[L] in bytes of the .bin, i64 documents[D]
//
// All little-endian and unaligned. D need not be L + 1: Pythia's own files have D = 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/file.h"
#include "tokens/id_type.h"

namespace pythia_fast {

// Where a row lies in the .bin.
struct Row {
  std::uint64_t offset;  // bytes
  std::uint64_t length;  // tokens
};

// How much of an index is checked when it is opened.
enum class IndexCheck {
  quick,    // what its size, header, first and last row say: 58 bytes are read
  full,     // every row and document
  by_size,  // full up to 64 MiB, else quick
};

class TokenIndex {
 public:
  // TokenFileError, with path and offset, for what does not add up.
  explicit TokenIndex(std::string path, IndexCheck check = IndexCheck::by_size);

  IdType type() const { return type_; }
  std::uint64_t rows() const { return rows_; }
  std::uint64_t documents() const { return documents_; }
  std::uint64_t bin_bytes() const { return bin_bytes_; }  // that the rows need
  const std::string& path() const { return mapping_.path(); }

  // Where each of `rows` lies, all below `rows()`. What is used is checked, whatever was checked at
  // opening: a row lies within `bin_bytes()` and ends where the next one begins, or TokenFileError.
  void locate(std::span<const std::int64_t> rows, std::span<Row> result) const;

  // Checks every row and document: TokenFileError for the first that is wrong.
  void verify(std::size_t threads) const;

  // TruncatedFileError if the file has shrunk since it was opened.
  void require_unchanged() const { mapping_.require_unchanged(); }

 private:
  struct Entry;

  template <typename Work>
  void read(Work work) const;
  void check_header();
  void check_ends();
  Row checked(std::uint64_t row, const Entry& entry) const;
  void prefetch(std::span<const std::int64_t> rows) const;
  void verify_rows(std::uint64_t begin, std::uint64_t end) const;
  void verify_documents(std::uint64_t begin, std::uint64_t end) const;
  [[noreturn]] void refuse(std::uint64_t offset, const std::string& reason) const;

  std::uint64_t size_at(std::uint64_t row) const;
  std::uint64_t pointer_at(std::uint64_t row) const;
  std::uint64_t document_at(std::uint64_t document) const;

  Mapping mapping_;
  IdType type_ = IdType::u16;
  std::uint64_t rows_ = 0;
  std::uint64_t documents_ = 0;
  std::uint64_t bin_bytes_ = 0;
  bool all_checked_ = false;  // at opening
};

}  // namespace pythia_fast
