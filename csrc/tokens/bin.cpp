#include "tokens/bin.h"

#include <cerrno>

#include "io/errors.h"

namespace pythia_fast {

Bin::Bin(const std::vector<std::string>& paths) : begins_{0} {
  if (paths.empty()) throw ArgumentError("token data needs at least one .bin");
  for (const std::string& path : paths) {
    files_.emplace_back(path);
    files_.back().expect_random_access();  // by rows; what is near them is asked for by `will_need`
  }
  for (const Mapping& file : files_) {
    pieces_.push_back(file.bytes());
    begins_.push_back(begins_.back() + file.bytes().size());
  }
}

Bin::Bin(Bytes memory) : pieces_{memory}, begins_{0, memory.size()} {}

void Bin::unreadable(const std::byte* address) const {
  if (files_.empty()) throw ReadError("an array (the file that it maps may have shrunk)", EIO);
  const auto holds = [&](const Mapping& file) {
    return address >= file.bytes().data() && address < file.bytes().data() + file.bytes().size();
  };
  std::find_if(files_.begin(), files_.end(), holds)->unreadable();
}

void Bin::Touched::add(std::uint64_t offset, std::uint64_t bytes) {
  if (files_.empty() || bytes == 0) return;
  const std::size_t last = bin_.file_of(offset + bytes - 1);
  for (std::size_t file = bin_.file_of(offset); file <= last; ++file) files_[file] = 1;
}

void Bin::Touched::require_unchanged() const {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i] != 0) bin_.files_[i].require_unchanged();
  }
}

bool Bin::in_memory(std::span<const Range> ranges) const noexcept {
  constexpr std::size_t samples = 32;
  if (files_.empty()) return true;
  const std::size_t number = std::min(samples, ranges.size());
  for (std::size_t i = 0; i < number; ++i) {
    const Range range = ranges[i * ranges.size() / number];
    if (range.count == 0) continue;
    const std::size_t file = file_of(range.offset);
    if (!files_[file].in_memory(range.offset - begins_[file])) return false;
  }
  return true;
}

void Bin::will_need(std::span<const Range> ranges, std::uint64_t item) const noexcept {
  if (files_.empty()) return;
  const auto ask = [&](std::uint64_t begin, std::uint64_t end) {
    while (begin < end) {
      const std::size_t file = file_of(begin);
      const std::uint64_t stop = std::min(end, begins_[file + 1]);
      files_[file].will_need(begin - begins_[file], stop - begin);
      begin = stop;
    }
  };
  std::uint64_t begin = 0;  // of neighbours that follow each other
  std::uint64_t end = 0;
  for (const Range range : ranges) {
    if (range.offset != end) {
      ask(begin, end);
      begin = range.offset;
    }
    end = range.offset + range.count * item;
  }
  ask(begin, end);
}

}  // namespace pythia_fast
