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
#include <string>

#include "io/file.h"
#include "tokens/id_type.h"

namespace pythia_fast {

// Where a row lies in the .bin.
struct Row {
  std::uint64_t offset;  // bytes
  std::uint64_t length;  // tokens
};

class TokenIndex {
 public:
  // Checks everything that the file says against itself: TokenFileError with path and offset.
  explicit TokenIndex(std::string path);

  IdType type() const { return type_; }
  std::uint64_t rows() const { return rows_; }
  std::uint64_t documents() const { return documents_; }
  std::uint64_t bin_bytes() const { return bin_bytes_; }  // that the rows need
  const std::string& path() const { return mapping_.path(); }

  // As the file says it now; a caller that indexes the .bin with it checks the range again.
  Row row(std::uint64_t index) const;

  // TruncatedFileError if the file has shrunk since it was opened.
  void require_unchanged() const { mapping_.require_unchanged(); }

 private:
  void check_header();
  void check_rows();
  void check_documents() const;

  Mapping mapping_;
  IdType type_ = IdType::u16;
  std::uint64_t rows_ = 0;
  std::uint64_t documents_ = 0;
  std::uint64_t bin_bytes_ = 0;
};

}  // namespace pythia_fast
