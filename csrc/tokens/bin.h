// The bytes of a .bin: one file, its shards in order, or memory, addressed as one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/guard.h"

namespace pythia_fast {

class Bin {
 public:
  // Part of the bytes, `count` ids of `item` bytes each.
  struct Range {
    std::uint64_t offset;
    std::uint64_t count;
  };

  // Files whose concatenation is the .bin, mapped read-only. Their sizes need not be multiples of
  // anything: an id may lie in two of them, or in more.
  explicit Bin(const std::vector<std::string>& paths);

  // Memory of the caller.
  explicit Bin(Bytes memory);

  std::uint64_t size() const { return begins_.back(); }
  const std::vector<Mapping>& files() const { return files_; }  // none of memory

  // Calls visit(address, ids) for the ids of a range, in order and in as few runs as the files
  // allow, until it returns false. An address need not be aligned. To be called by what `read` is
  // given, and as plain as that.
  template <typename Visit>
  void visit(Range range, std::uint64_t item, Visit visit) const noexcept;

  // Calls work(), which is noexcept and leaves nothing to destroy (io/guard.h): it may visit.
  // TruncatedFileError or ReadError if it met a page that could not be read.
  template <typename Work>
  void read(Work work) const {
    const std::byte* lost = guarded(pieces_, work);  // memory may be a file that somebody mapped
    if (lost != nullptr) unreadable(lost);
  }

  // The files that ranges lie in. Whoever has read asks them whether they are what they were.
  class Touched {
   public:
    explicit Touched(const Bin& bin) : bin_(bin), files_(bin.files_.size()) {}
    void add(std::uint64_t offset, std::uint64_t bytes);
    void require_unchanged() const;  // TruncatedFileError for one that has shrunk

   private:
    const Bin& bin_;
    std::vector<char> files_;
  };

  // Whether all of some of the ranges are in memory, so that the others may be taken to be.
  bool in_memory(std::span<const Range> ranges) const noexcept;

  // Begins to read ranges from the disk, and does not wait for them.
  void will_need(std::span<const Range> ranges, std::uint64_t item) const noexcept;

 private:
  // The file that has the byte at `offset`, which is below `size()`.
  std::size_t file_of(std::uint64_t offset) const noexcept {
    if (pieces_.size() == 1) return 0;
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), offset);
    return static_cast<std::size_t>(after - begins_.begin()) - 1;
  }
  [[noreturn]] void unreadable(const std::byte* address) const;

  std::vector<Mapping> files_;
  std::vector<Bytes> pieces_;
  std::vector<std::uint64_t> begins_;  // of each piece, and the end of all
};

template <typename Visit>
void Bin::visit(Range range, std::uint64_t item, Visit visit) const noexcept {
  if (range.count == 0) return;
  std::size_t file = file_of(range.offset);
  std::uint64_t at = range.offset - begins_[file];
  std::uint64_t left = range.count;
  const auto pass_ends = [&] {  // the range goes on, so there is a file that does
    for (; at == pieces_[file].size(); at = 0) ++file;
  };
  for (;;) {
    pass_ends();
    const Bytes piece = pieces_[file];
    const std::uint64_t whole = std::min(left, (piece.size() - at) / item);
    if (whole > 0 && !visit(piece.data() + at, whole)) return;
    at += whole * item;
    left -= whole;
    if (left == 0) return;
    if (at == piece.size()) continue;
    std::array<std::byte, 8> id{};  // that goes on in another file
    for (std::uint64_t got = 0; got < item;) {
      pass_ends();
      const std::uint64_t some = std::min<std::uint64_t>(item - got, pieces_[file].size() - at);
      std::memcpy(&id[got], pieces_[file].data() + at, some);
      got += some;
      at += some;
    }
    if (!visit(id.data(), std::uint64_t{1}) || --left == 0) return;
  }
}

}  // namespace pythia_fast
