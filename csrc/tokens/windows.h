// Many ranges of a .bin, read a bounded number of bytes at a time: while one window is worked on,
// the next one is on its way from the disk.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tokens/bin.h"

namespace pythia_fast {

// What is to be read of one row, and what for.
struct Wanted {
  Bin::Range range;
  std::byte* to = nullptr;     // where the ids go, if anywhere
  std::uint64_t zeros = 0;     // that follow them there
  std::uint64_t start = 0;     // the first id's place in its row
  std::uint64_t position = 0;  // the row's place in the request
};

struct Window {
  std::vector<Bin::Range> ranges;
  std::vector<Wanted> wanted;       // one for each range; long rows are several
  std::vector<std::size_t> begins;  // of what one thread does at a time, and the end

  std::size_t pieces() const { return begins.size() - 1; }
};

inline constexpr std::uint64_t window_bytes = std::uint64_t{1} << 24;
inline constexpr std::size_t window_ranges = 2048;
// Below this a second thread costs more than it brings.
inline constexpr std::uint64_t piece_bytes = std::uint64_t{1} << 18;
inline constexpr std::uint64_t run_bytes = std::uint64_t{1} << 22;  // of one row at a time

// Cuts `number` requests into windows. wanted_of(begin, span) says what those from `begin` on are;
// ids have `item` bytes in the .bin, and `to_item` where they go.
template <typename WantedOf>
class Windows {
 public:
  Windows(const Bin& bin, std::uint64_t item, std::uint64_t to_item, std::uint64_t number,
          WantedOf wanted_of)
      : bin_(bin),
        item_(item),
        to_item_(to_item),
        number_(number),
        wanted_of_(wanted_of),
        touched_(bin) {}

  // The next window, with what is not in memory asked for; false if there is none.
  bool next(Window& window) {
    window.ranges.clear();
    window.wanted.clear();
    window.begins.assign(1, 0);
    std::uint64_t bytes = 0;
    std::uint64_t of_piece = 0;
    while (bytes < window_bytes && window.ranges.size() < window_ranges && more()) {
      const Wanted run = next_run();
      touched_.add(run.range.offset, run.range.count * item_);
      window.ranges.push_back(run.range);
      window.wanted.push_back(run);
      bytes += run.range.count * item_;
      of_piece += run.range.count * std::max(item_, to_item_) + run.zeros * to_item_;
      if (of_piece >= piece_bytes) {
        window.begins.push_back(window.ranges.size());
        of_piece = 0;
      }
    }
    if (window.begins.back() != window.ranges.size()) window.begins.push_back(window.ranges.size());
    if (!bin_.in_memory(window.ranges)) bin_.will_need(window.ranges, item_);
    return !window.ranges.empty();
  }

  // TruncatedFileError if a file that was read has shrunk.
  void require_unchanged() const { touched_.require_unchanged(); }

 private:
  bool more() {
    if (next_ < known_) return true;
    known_ = static_cast<std::size_t>(std::min<std::uint64_t>(some_.size(), number_ - asked_));
    next_ = 0;
    if (known_ == 0) return false;
    wanted_of_(asked_, std::span(some_).first(known_));
    asked_ += known_;
    return true;
  }

  // What is left of the next request, or so much of it as one thread is to copy.
  Wanted next_run() {
    Wanted run = some_[next_];
    run.range.offset += done_ * item_;
    run.range.count = std::min(run.range.count - done_, run_bytes / item_);
    run.start += done_;
    if (run.to != nullptr) run.to += done_ * to_item_;
    done_ += run.range.count;
    if (done_ < some_[next_].range.count) {
      run.zeros = 0;
    } else {
      ++next_;
      done_ = 0;
    }
    return run;
  }

  const Bin& bin_;
  const std::uint64_t item_;
  const std::uint64_t to_item_;
  const std::uint64_t number_;
  WantedOf wanted_of_;
  Bin::Touched touched_;
  std::array<Wanted, 256> some_;
  std::size_t known_ = 0;    // of `some_`
  std::size_t next_ = 0;     // of those
  std::uint64_t asked_ = 0;  // of `number_`
  std::uint64_t done_ = 0;   // ids of the next one
};

// Calls work(window) for all windows in order, until it returns false.
template <typename WantedOf, typename Work>
void for_windows(Windows<WantedOf> windows, Work work) {
  Window now;
  Window ahead;
  for (bool more = windows.next(now); more; std::swap(now, ahead)) {
    more = windows.next(ahead);
    if (!work(std::as_const(now))) break;
  }
  windows.require_unchanged();
}

}  // namespace pythia_fast
