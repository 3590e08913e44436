// Work shared among threads, with no failure lost.
#pragma once

#include <cstddef>
#include <functional>

namespace pythia_fast {

// Calls work(0) … work(pieces - 1), each once, on at most `threads` threads, the caller's among
// them. After a failure no new piece is begun; of what was thrown, the exception of the lowest
// piece is thrown on.
void share(std::size_t pieces, std::size_t threads, const std::function<void(std::size_t)>& work);

}  // namespace pythia_fast
