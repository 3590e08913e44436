// How often many sequences of ids occur, all of them in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tokens/token_store.h"

namespace pythia_fast {

// What an id's text begins and ends with, as bits that mean nothing here. Ids beyond either have
// none.
struct Edges {
  std::span<const std::uint8_t> begins;
  std::span<const std::uint8_t> ends;
};

// Where a term does not count: after an id that ends with a bit of `left`, before one that begins
// with a bit of `right`. At the ends of a row it counts.
struct Sides {
  std::uint8_t left;
  std::uint8_t right;
};

class TermCounter {
 public:
  // Term i is ids [bounds[i], bounds[i + 1]). ArgumentError for bounds that do not ascend within
  // the ids, an empty term, a negative id or one of 2^24 or more, and for two terms that are the
  // same.
  TermCounter(std::span<const std::int64_t> ids, std::span<const std::int64_t> bounds,
              std::span<const Sides> sides, Edges edges);

  std::size_t terms() const { return sides_.size(); }

  // Adds to counts[i] how often term i occurs in the rows of a matrix, of which row r has
  // lengths[r] ids. Terms may overlap, and none reaches from one row into the next. ArgumentError
  // for other numbers of lengths or counts, and for a length that the matrix does not have.
  void count(const Matrix& matrix, std::span<const std::int64_t> lengths,
             std::span<std::int64_t> counts, std::size_t threads) const;

 private:
  // Of the tree whose paths are the terms. Its children are edges [first, last), by their ids.
  struct Node {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::int32_t term = -1;  // that ends here
  };
  struct Edge {
    std::uint32_t id;
    std::uint32_t node;
  };

  void grow(std::span<const std::vector<std::uint32_t>> terms,
            std::span<const std::uint32_t> order);
  template <typename Id>
  void count_row(const std::byte* row, std::uint64_t length, std::int64_t* counts) const;
  bool has_edge(const std::vector<std::uint8_t>& of, std::uint64_t id, std::uint8_t bits) const {
    return bits != 0 && id < of.size() && (of[id] & bits) != 0;
  }

  std::vector<Sides> sides_;
  std::vector<std::uint8_t> begins_;
  std::vector<std::uint8_t> ends_;
  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  // Most ids begin no term: a bit says so from the first cache, before the node is looked up.
  std::vector<std::uint64_t> begins_term_;
  std::vector<std::uint32_t> roots_;  // of an id: the node of the terms that begin with it
};

}  // namespace pythia_fast
