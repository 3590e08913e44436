#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "io/errors.h"

namespace pythia_fast {

File::File(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK changes nothing for regular files and keeps a FIFO from hanging us here.
  do {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) throw ReadError(path_, errno);
  struct stat status{};
  int failure = 0;
  if (::fstat(descriptor_, &status) != 0) {
    failure = errno;
  } else if (!S_ISREG(status.st_mode)) {
    failure = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  }
  if (failure != 0) {
    ::close(descriptor_);
    throw ReadError(path_, failure);
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

std::uint64_t File::current_size() const {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) throw ReadError(path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

void File::require(std::uint64_t offset, std::uint64_t bytes) const {
  if (offset <= size_ && bytes <= size_ - offset) return;
  throw TruncatedFileError(path_,
                           std::to_string(bytes) +
                               " bytes are needed from here, but the file has " +
                               std::to_string(size_) + " in all",
                           offset);
}

void File::read(std::uint64_t offset, std::span<std::byte> destination) const {
  require(offset, destination.size());
  std::size_t done = 0;
  while (done < destination.size()) {
    const ssize_t got = ::pread(descriptor_, destination.data() + done, destination.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw ReadError(path_, errno);
    }
    if (got == 0) {
      throw TruncatedFileError(
          path_,
          "the file ends here now; it had " + std::to_string(size_) + " bytes when it was opened",
          offset + done);
    }
    done += static_cast<std::size_t>(got);
  }
}

Mapping::Mapping(std::string path) : file_(std::move(path)) {
  if (file_.size() == 0) return;  // mmap refuses an empty range
  void* address = ::mmap(nullptr, file_.size(), PROT_READ, MAP_SHARED, file_.descriptor(), 0);
  if (address == MAP_FAILED) throw ReadError(file_.path(), errno);
  begin_ = static_cast<const std::byte*>(address);
}

Mapping::~Mapping() {
  if (begin_ != nullptr) ::munmap(const_cast<std::byte*>(begin_), file_.size());
}

Mapping::Mapping(Mapping&& other) noexcept
    : file_(std::move(other.file_)), begin_(std::exchange(other.begin_, nullptr)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(begin_, other.begin_);
  return *this;
}

void Mapping::require_unchanged() const {
  const std::uint64_t now = file_.current_size();
  if (now >= file_.size()) return;
  throw TruncatedFileError(path(),
                           "the file ends here now; it had " + std::to_string(file_.size()) +
                               " bytes when it was opened",
                           now);
}

void Mapping::unreadable() const {
  require_unchanged();
  throw ReadError(path(), EIO);
}

void Mapping::expect_random_access() const noexcept {
  if (begin_ == nullptr) return;
  ::madvise(const_cast<std::byte*>(begin_), file_.size(), MADV_RANDOM);
#if defined(POSIX_FADV_RANDOM)
  ::posix_fadvise(file_.descriptor(), 0, 0, POSIX_FADV_RANDOM);
#endif
}

bool Mapping::in_memory([[maybe_unused]] std::uint64_t offset) const noexcept {
#if defined(RWF_NOWAIT)
  char byte = 0;
  const iovec one{&byte, 1};
  return ::preadv2(file_.descriptor(), &one, 1, static_cast<off_t>(offset), RWF_NOWAIT) >= 0;
#else
  return false;
#endif
}

void Mapping::will_need([[maybe_unused]] std::uint64_t offset,
                        [[maybe_unused]] std::uint64_t bytes) const noexcept {
#if defined(POSIX_FADV_WILLNEED)
  // Linux reads no more than the device's read-ahead for one call, 128 KB and more.
  constexpr std::uint64_t most = std::uint64_t{1} << 17;
  while (bytes > 0) {
    const std::uint64_t now = std::min(bytes, most);
    ::posix_fadvise(file_.descriptor(), static_cast<off_t>(offset), static_cast<off_t>(now),
                    POSIX_FADV_WILLNEED);
    offset += now;
    bytes -= now;
  }
#endif
}

}  // namespace pythia_fast
