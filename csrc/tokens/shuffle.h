// NumPy's legacy shuffle of a vector, RandomState.shuffle, bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tokens/mt19937.h"

namespace pythia_fast {

// result[k] = a number in [0, first - k], each as RandomState draws it: the lowest bits of a word
// that such a number can need, drawn again for as long as they are too many. Bounds beyond 32 bits
// take two words, the first of them the higher. ArgumentError if a bound would be 0, for which
// nothing is drawn.
void draw_below(Mt19937& random, std::uint64_t first, std::span<std::uint64_t> result);

// Fisher and Yates' exchanges of x[i] for i = end - 1, …, max(begin, 1), each with the x[j] that
// `draw_below` gives. A shuffle is all of them, from end = x.size() down to begin = 0, in one call
// or in several. On a second thread the next numbers are drawn meanwhile.
void shuffle(Mt19937& random, std::span<std::uint32_t> x, std::uint64_t begin, std::uint64_t end,
             std::size_t threads);
void shuffle(Mt19937& random, std::span<std::uint64_t> x, std::uint64_t begin, std::uint64_t end,
             std::size_t threads);

}  // namespace pythia_fast
