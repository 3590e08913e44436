// Move-only handles: an open file read with pread, and a read-only mapping of a whole file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pythia_fast {

// A regular file, open for reading. Reads are exact: all bytes or an error. Safe to share among
// threads, as pread keeps no position.
class File {
 public:
  explicit File(std::string path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // when it was opened
  int descriptor() const { return descriptor_; }

  std::uint64_t current_size() const;  // asks the operating system again

  // TruncatedFileError unless [offset, offset + bytes) lies within the size at opening.
  void require(std::uint64_t offset, std::uint64_t bytes) const;

  // Fills `destination` from `offset`; TruncatedFileError where the file ends too early.
  void read(std::uint64_t offset, std::span<std::byte> destination) const;

 private:
  std::string path_;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

// A whole file mapped read-only. Read it through `guarded` (io/guard.h): a page beyond the end of a
// file that has shrunk since raises SIGBUS. The rest of the last page then reads as zeros, so that
// whoever has read asks `require_unchanged` before he believes it.
class Mapping {
 public:
  explicit Mapping(std::string path);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::string& path() const { return file_.path(); }
  std::span<const std::byte> bytes() const { return {begin_, file_.size()}; }

  // TruncatedFileError if the file has shrunk since it was mapped.
  void require_unchanged() const;

  // The error for a page of it that could not be read.
  [[noreturn]] void unreadable() const;

  // Places far apart will be read: nothing around them is to be read with them.
  void expect_random_access() const noexcept;

  // Whether a byte is in memory; false also where the system does not tell.
  bool in_memory(std::uint64_t offset) const noexcept;

  // Begins to read [offset, offset + bytes) from the disk, and does not wait for it.
  void will_need(std::uint64_t offset, std::uint64_t bytes) const noexcept;

 private:
  File file_;
  const std::byte* begin_ = nullptr;
};

}  // namespace pythia_fast
