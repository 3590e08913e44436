#include "tokens/shuffle.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/errors.h"
#include "io/workers.h"

namespace pythia_fast {
namespace {

constexpr std::uint64_t block = std::uint64_t{1} << 15;  // exchanges: their numbers fit in L2
constexpr std::uint64_t distance = 48;  // exchanges between asking for a line and using it

// The smallest 2^k - 1 that is not below `bound`.
std::uint64_t mask_of(std::uint64_t bound) {
  return std::numeric_limits<std::uint64_t>::max() >> std::countl_zero(bound);
}

// As draw_below, for bounds that all have this mask of at most 32 bits.
void draw_masked(Mt19937& random, std::uint32_t mask, std::uint64_t first,
                 std::span<std::uint64_t> result) {
  std::uint64_t made = 0;
  while (made < result.size()) {
    const auto words = random.ahead();
    const std::size_t tried = std::min<std::size_t>(words.size(), result.size() - made);
    // A number that is too high is overwritten by the next: a branch here would be guessed wrong
    // every third time.
    for (const std::uint32_t word : words.first(tried)) {
      const std::uint64_t number = word & mask;
      result[made] = number;
      made += number <= first - made ? 1 : 0;
    }
    random.skip(tried);
  }
}

std::uint64_t draw_wide(Mt19937& random, std::uint64_t bound) {
  const std::uint64_t mask = mask_of(bound);
  for (;;) {
    const std::uint64_t high = random.next();
    const std::uint64_t number = (high << 32 | random.next()) & mask;
    if (number <= bound) return number;
  }
}

// Exchanges x[first - k] with x[others[k]].
template <typename T>
void exchange(T* x, std::uint64_t first, std::span<const std::uint64_t> others) {
  const std::uint64_t count = others.size();
  const std::uint64_t asked = std::min(count, distance);
  for (std::uint64_t k = 0; k < asked; ++k) __builtin_prefetch(x + others[k], 1);
  for (std::uint64_t k = 0; k + distance < count; ++k) {
    __builtin_prefetch(x + others[k + distance], 1);
    std::swap(x[first - k], x[others[k]]);
  }
  for (std::uint64_t k = count - asked; k < count; ++k) std::swap(x[first - k], x[others[k]]);
}

template <typename T>
void shuffle_any(Mt19937& random, std::span<T> x, std::uint64_t begin, std::uint64_t end,
                 std::size_t threads) {
  if (begin > end || end > x.size()) {
    throw ArgumentError("elements " + std::to_string(begin) + " to " + std::to_string(end) +
                        " of " + std::to_string(x.size()) + " cannot be exchanged");
  }
  begin = std::max<std::uint64_t>(begin, 1);
  if (end <= begin) return;
  std::vector<std::uint64_t> now(std::min(block, end - begin));
  std::vector<std::uint64_t> next;
  draw_below(random, end - 1, now);
  while (!now.empty()) {
    const std::uint64_t rest = end - now.size();  // the elements from here on are done after this
    next.resize(std::min(block, rest - begin));
    share(2, threads, [&](std::size_t piece) {
      if (piece == 0) {
        exchange(x.data(), end - 1, now);
      } else if (!next.empty()) {
        draw_below(random, rest - 1, next);
      }
    });
    end = rest;
    std::swap(now, next);
  }
}

}  // namespace

void draw_below(Mt19937& random, std::uint64_t first, std::span<std::uint64_t> result) {
  if (result.size() > first) {
    throw ArgumentError(std::to_string(result.size()) + " bounds that fall from " +
                        std::to_string(first) + " do not all lie above 0");
  }
  std::uint64_t made = 0;
  for (; made < result.size() && first - made > 0xffffffffU; ++made) {
    result[made] = draw_wide(random, first - made);
  }
  while (made < result.size()) {
    const std::uint64_t bound = first - made;
    const std::uint64_t mask = mask_of(bound);
    const std::uint64_t alike = std::min(result.size() - made, bound - (mask >> 1));
    draw_masked(random, static_cast<std::uint32_t>(mask), bound, result.subspan(made, alike));
    made += alike;
  }
}

void shuffle(Mt19937& random, std::span<std::uint32_t> x, std::uint64_t begin, std::uint64_t end,
             std::size_t threads) {
  shuffle_any(random, x, begin, end, threads);
}

void shuffle(Mt19937& random, std::span<std::uint64_t> x, std::uint64_t begin, std::uint64_t end,
             std::size_t threads) {
  shuffle_any(random, x, begin, end, threads);
}

}  // namespace pythia_fast
