#include "io/ahead.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pythia_fast {
namespace {

// Whether a byte of the file is in memory. Its page's neighbours are taken to be as well.
bool in_memory([[maybe_unused]] const File& file, [[maybe_unused]] std::uint64_t offset) {
#if defined(RWF_NOWAIT)
  char byte = 0;
  const iovec one{&byte, 1};
  return ::preadv2(file.descriptor(), &one, 1, static_cast<off_t>(offset), RWF_NOWAIT) == 1;
#else
  return false;
#endif
}

}  // namespace

Ahead::Ahead([[maybe_unused]] const File& file, [[maybe_unused]] std::uint64_t offset,
             [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(MADV_POPULATE_READ)
  if (bytes == 0 || !in_memory(file, offset) || !in_memory(file, offset + bytes - 1)) return;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t first = offset / page * page;
  const std::size_t length = bytes + static_cast<std::size_t>(offset - first);
  void* address =
      ::mmap(nullptr, length, PROT_READ, MAP_SHARED, file.descriptor(), static_cast<off_t>(first));
  if (address == MAP_FAILED) return;
  if (::madvise(address, length, MADV_POPULATE_READ) != 0) {
    ::munmap(address, length);
    return;
  }
  offset_ = first;
  bytes_ = length;
  begin_ = address;
#endif
}

Ahead::~Ahead() {
  if (begin_ != nullptr) ::munmap(begin_, bytes_);
}

const std::byte* Ahead::at(std::uint64_t offset, std::size_t bytes) const noexcept {
  if (begin_ == nullptr || offset < offset_) return nullptr;
  const std::uint64_t from = offset - offset_;
  if (from > bytes_ || bytes > bytes_ - from) return nullptr;
  return static_cast<const std::byte*>(begin_) + from;
}

void prefetch(const std::byte* begin, std::size_t bytes) noexcept {
  if (begin == nullptr) return;
  constexpr std::size_t line = 64;
  for (std::size_t at = 0; at < bytes; at += line) __builtin_prefetch(begin + at, 0, 2);
}

}  // namespace pythia_fast
