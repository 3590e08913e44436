// A page of a mapped file that cannot be read, as an answer instead of the end of the process.
//
// Reading a mapping beyond the end of a file that has shrunk, or where the disk fails, raises
// SIGBUS in the thread that reads. The size can be asked before, but the file may shrink between
// the question and the read. `pread` has no such gap, and one copy more, of everything; a handler
// costs nothing until it is needed.
//
// What belongs to the process is left as it was found:
// - The handler is installed when something is first guarded, not on import, and again whenever
//   another one has taken its place since (faulthandler.enable(), a DataLoader's worker): to ask
//   takes a quarter of a microsecond, once for some hundred kilobytes.
// - It answers only for the ranges that the thread is reading just now. Any other SIGBUS goes to
//   the handlers that it found, the newest first, each once, and then to the system's default.
// - It uses nothing but memory that is there already, and leaves by siglongjmp, so that nothing
//   between here and the read may need to be destroyed: guarded work is loops over plain memory.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

namespace pythia_fast {

using Bytes = std::span<const std::byte>;

// Calls work(argument), which reads `ranges`. Null, or the address in them that could not be read;
// the work was then left in the middle. It must not throw.
const std::byte* guarded(std::span<const Bytes> ranges, void (*work)(void*), void* argument);

template <typename Work>
const std::byte* guarded(std::span<const Bytes> ranges, Work& work) {
  static_assert(std::is_trivially_destructible_v<Work>,
                "a capture by value would not be destroyed");
  static_assert(noexcept(work()));
  return guarded(ranges, [](void* argument) { (*static_cast<Work*>(argument))(); }, &work);
}

}  // namespace pythia_fast
