// The training order of GPT-NeoX: which tokens a sample is made of, and what makes an order whole.
// Arrays may be mapped: one whose file has shrunk is an OrderError.
//
//   doc_idx      the documents, one after the other, as often as there are epochs
//   sample_idx   where sample k begins: (position in doc_idx, token of that document); one row more
//                than there are samples, since a sample ends with the token that the next begins
//                with
//   shuffle_idx  which sample is the i-th that training sees
//
// A row k > 0 of sample_idx is where token k·S of the stream lies, S being the sequence length:
// documents without a token never hold one. Row 0 is (0, 0), even where document 0 has no token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "tokens/lengths.h"

namespace pythia_fast {

// The tokens of all documents. OrderError for a negative length, or for 2^63 tokens or more.
std::uint64_t total_tokens(const Lengths& lengths, std::size_t threads);

// The rows of sample_idx, flat: (position, offset), (position, offset), …
using NarrowRows = std::span<const std::int32_t>;
using WideRows = std::span<const std::int64_t>;
using SampleIdx = std::variant<NarrowRows, WideRows>;

// Cuts the stream of documents into samples, some documents at a time. All memory is the caller's
// and stays.
class Cutter {
 public:
  Cutter(const Lengths& lengths, std::span<const std::int32_t> doc_idx,
         std::uint64_t sequence_length);

  std::uint64_t position() const { return position_; }  // in doc_idx: those before it are done
  std::uint64_t tokens() const { return tokens_; }      // of the documents done

  // Takes the next `documents` of doc_idx, or what is left, and writes the rows that begin in them.
  // OrderError for a document that is not there or has a negative length.
  void write(std::span<std::int64_t> rows, std::uint64_t documents, std::size_t threads);

  // The same, but compares: OrderError for the first row that differs.
  void compare(const SampleIdx& rows, std::uint64_t documents, std::size_t threads);

 private:
  template <typename Take>
  void advance(std::span<const std::byte> array, std::uint64_t rows, std::uint64_t documents,
               std::size_t threads, const Take& take);

  Lengths lengths_;
  std::span<const std::int32_t> doc_idx_;
  std::uint64_t sequence_length_;
  std::uint64_t position_ = 0;
  std::uint64_t tokens_ = 0;
  std::vector<std::int64_t> found_;  // lengths of the documents of one round
};

// What can be said of sample_idx without the lengths: it begins at (0, 0), rises by
// `sequence_length` within a document, and stays within doc_idx. OrderError for the first row that
// does not.
void check_rows(const SampleIdx& rows, std::uint64_t positions, std::uint64_t sequence_length,
                std::size_t threads);

// OrderError for the first value that is not below the number of values or was there before.
void check_permutation(std::span<const std::uint32_t> values, std::size_t threads);
void check_permutation(std::span<const std::int64_t> values, std::size_t threads);

// -1 where there is none.
std::int32_t highest_document(std::span<const std::int32_t> doc_idx);

// OrderError unless doc_idx holds each of `documents` equally often.
void check_documents(std::span<const std::int32_t> doc_idx, std::uint64_t documents,
                     std::size_t threads);

}  // namespace pythia_fast
