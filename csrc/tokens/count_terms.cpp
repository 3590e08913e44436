#include "tokens/count_terms.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <string>

#include "io/errors.h"
#include "io/workers.h"
#include "tokens/copy_ids.h"

namespace pythia_fast {
namespace {

constexpr std::int64_t id_limit = std::int64_t{1} << 24;  // more than any vocabulary has
constexpr std::uint64_t piece_tokens = 1 << 16;           // that a thread takes at a time

std::vector<std::uint32_t> one_term(std::span<const std::int64_t> ids, std::int64_t begin,
                                    std::int64_t end, std::size_t term) {
  const std::string which = "term " + std::to_string(term);
  if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > ids.size()) {
    throw ArgumentError(which + " lies outside its ids");
  }
  if (begin == end) throw ArgumentError(which + " has no id");
  std::vector<std::uint32_t> result;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t id = ids[static_cast<std::size_t>(i)];
    if (id < 0 || id >= id_limit) {
      throw ArgumentError(which + " holds " + std::to_string(id) + ", which is no token id");
    }
    result.push_back(static_cast<std::uint32_t>(id));
  }
  return result;
}

}  // namespace

TermCounter::TermCounter(std::span<const std::int64_t> ids, std::span<const std::int64_t> bounds,
                         std::span<const Sides> sides, Edges edges)
    : sides_(sides.begin(), sides.end()),
      begins_(edges.begins.begin(), edges.begins.end()),
      ends_(edges.ends.begin(), edges.ends.end()) {
  if (bounds.size() != sides.size() + 1) {
    throw ArgumentError(std::to_string(sides.size()) + " terms have " +
                        std::to_string(sides.size() + 1) + " bounds, not " +
                        std::to_string(bounds.size()));
  }
  std::vector<std::vector<std::uint32_t>> terms;
  for (std::size_t i = 0; i < sides.size(); ++i) {
    terms.push_back(one_term(ids, bounds[i], bounds[i + 1], i));
  }
  std::vector<std::uint32_t> order(terms.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return terms[a] != terms[b] ? terms[a] < terms[b] : a < b;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (terms[order[i - 1]] == terms[order[i]]) {
      throw ArgumentError("terms " + std::to_string(order[i - 1]) + " and " +
                          std::to_string(order[i]) + " are the same");
    }
  }
  grow(terms, order);
}

// A node at a time, from the root: its terms lie side by side in `order`, since that is sorted.
void TermCounter::grow(std::span<const std::vector<std::uint32_t>> terms,
                       std::span<const std::uint32_t> order) {
  struct Waiting {
    std::uint32_t node;
    std::size_t begin, end;  // of `order`
    std::size_t depth;
  };
  nodes_.emplace_back();
  std::vector<Waiting> waiting{{0, 0, order.size(), 0}};
  for (std::size_t next = 0; next < waiting.size(); ++next) {
    auto [node, begin, end, depth] = waiting[next];
    if (begin < end && terms[order[begin]].size() == depth) {
      nodes_[node].term = static_cast<std::int32_t>(order[begin++]);
    }
    nodes_[node].first = static_cast<std::uint32_t>(edges_.size());
    while (begin < end) {
      const std::uint32_t id = terms[order[begin]][depth];
      std::size_t same = begin;
      while (same < end && terms[order[same]][depth] == id) ++same;
      const auto child = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
      edges_.push_back({id, child});
      waiting.push_back({child, begin, same, depth + 1});
      begin = same;
    }
    nodes_[node].last = static_cast<std::uint32_t>(edges_.size());
  }
  const std::size_t roots = nodes_[0].last;
  const std::size_t limit = roots == 0 ? 0 : edges_[roots - 1].id + std::size_t{1};
  roots_.assign(limit, 0);
  begins_term_.assign((limit + 63) / 64, 0);
  for (std::size_t i = 0; i < roots; ++i) {
    roots_[edges_[i].id] = edges_[i].node;
    begins_term_[edges_[i].id / 64] |= std::uint64_t{1} << edges_[i].id % 64;
  }
}

template <typename Id>
void TermCounter::count_row(const std::byte* row, std::uint64_t length,
                            std::int64_t* counts) const {
  // Each id is read once where its value matters: others may write the memory meanwhile. One that
  // is negative becomes one that is too large.
  const auto at = [row](std::uint64_t i) {
    return static_cast<std::uint64_t>(load_id<Id>(row + i * sizeof(Id)));
  };
  const std::uint64_t limit = roots_.size();
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t id = at(i);
    if (id >= limit || (begins_term_[id / 64] >> id % 64 & 1) == 0) continue;
    const Node* node = &nodes_[roots_[id]];
    for (std::uint64_t next = i + 1;; ++next) {
      if (node->term >= 0) {
        const auto term = static_cast<std::size_t>(node->term);
        const bool joined = (i > 0 && has_edge(ends_, at(i - 1), sides_[term].left)) ||
                            (next < length && has_edge(begins_, at(next), sides_[term].right));
        counts[term] += joined ? 0 : 1;
      }
      if (next >= length || node->first == node->last) break;
      const std::uint64_t wanted = at(next);
      const auto last = edges_.begin() + node->last;
      const auto found =
          std::lower_bound(edges_.begin() + node->first, last, wanted,
                           [](const Edge& edge, std::uint64_t value) { return edge.id < value; });
      if (found == last || found->id != wanted) break;
      node = &nodes_[found->node];
    }
  }
}

void TermCounter::count(const Matrix& matrix, std::span<const std::int64_t> lengths,
                        std::span<std::int64_t> counts, std::size_t threads) const {
  if (lengths.size() != matrix.rows) {
    throw ArgumentError(std::to_string(matrix.rows) + " rows have as many lengths, not " +
                        std::to_string(lengths.size()));
  }
  if (counts.size() != terms()) {
    throw ArgumentError(std::to_string(terms()) + " terms have as many counts, not " +
                        std::to_string(counts.size()));
  }
  const std::vector<std::int64_t> own(lengths.begin(), lengths.end());
  for (const std::int64_t length : own) {
    if (length < 0 || static_cast<std::uint64_t>(length) > matrix.columns) {
      throw ArgumentError("a row of " + std::to_string(length) + " ids in a matrix of " +
                          std::to_string(matrix.columns) + " columns");
    }
  }
  const std::uint64_t rows_each =
      std::max<std::uint64_t>(1, piece_tokens / std::max<std::uint64_t>(1, matrix.columns));
  std::mutex guard;
  const auto work = [&](std::size_t piece) {
    std::vector<std::int64_t> found(terms(), 0);
    const std::uint64_t end = std::min<std::uint64_t>(matrix.rows, (piece + 1) * rows_each);
    with_output_type(matrix.type, [&](auto id) {
      for (std::uint64_t row = piece * rows_each; row < end; ++row) {
        const std::byte* from = matrix.begin + static_cast<std::int64_t>(row) * matrix.row_bytes;
        count_row<decltype(id)>(from, static_cast<std::uint64_t>(own[row]), found.data());
      }
    });
    const std::lock_guard lock(guard);
    for (std::size_t i = 0; i < found.size(); ++i) counts[i] += found[i];
  };
  share((matrix.rows + rows_each - 1) / rows_each, threads, work);
}

}  // namespace pythia_fast
