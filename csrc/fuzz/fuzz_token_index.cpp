// libFuzzer: any bytes as an .idx are an error of ours, or rows that lie where they should.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "io/errors.h"
#include "tokens/token_index.h"
#include "tokens/token_store.h"

namespace pythia_fast {
namespace {

constexpr std::uint64_t most_bin_bytes = std::uint64_t{1} << 16;
constexpr std::uint64_t most_rows = 512;

void require(bool truth) {
  if (!truth) std::abort();
}

// A file without a place on the disk.
class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : descriptor_(::memfd_create(name, 0)) {
    require(descriptor_ >= 0);
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void fill(const std::uint8_t* data, std::size_t size) const {
    require(::ftruncate(descriptor_, 0) == 0);
    require(::pwrite(descriptor_, data, size, 0) == static_cast<ssize_t>(size));
  }
  void resize(std::uint64_t size) const {
    require(::ftruncate(descriptor_, static_cast<off_t>(size)) == 0);
  }

 private:
  int descriptor_;
};

std::optional<TokenIndex> opened(const std::string& path, IndexCheck check) {
  try {
    return TokenIndex(path, check);
  } catch (const TokenFileError&) {
    return std::nullopt;
  }
}

// All rows, if each may be used.
std::optional<std::vector<Row>> located(const TokenIndex& index) {
  std::vector<std::int64_t> rows;
  for (std::uint64_t i = 0; i < std::min(index.rows(), most_rows); ++i) {
    rows.push_back(static_cast<std::int64_t>(i));
  }
  std::vector<Row> result(rows.size());
  try {
    index.locate(rows, result);
  } catch (const TokenFileError&) {
    return std::nullopt;
  }
  return result;
}

bool verified(const TokenIndex& index) {
  try {
    index.verify(1);
  } catch (const TokenFileError&) {
    return false;
  }
  return true;
}

// Reads all ids of a .bin of zeros, in two shards that are cut anywhere.
void read_all(const std::string& path, const TokenIndex& index, std::uint64_t cut_at) {
  static const MemoryFile first("first");
  static const MemoryFile second("second");
  const std::uint64_t cut = cut_at % (index.bin_bytes() + 1);
  first.resize(cut);
  second.resize(index.bin_bytes() - cut);
  const TokenStore store(path, {first.path(), second.path()}, IndexCheck::quick);
  std::vector<std::int64_t> rows(index.rows());
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
  std::vector<std::int64_t> lengths(rows.size());
  store.lengths(rows, lengths);
  std::vector<std::int64_t> ids(index.bin_bytes() / item_size(index.type()), -1);
  std::vector<Part> parts;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto length = static_cast<std::uint64_t>(lengths[i]);
    parts.push_back({rows[i], 0, length, reinterpret_cast<std::byte*>(ids.data() + at)});
    at += length;
  }
  require(at == ids.size());
  store.copy(parts, IdType::i64, 1);
  for (const std::int64_t id : ids) require(id == 0);
}

void check(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file("index");
  file.fill(data, size);
  const auto full = opened(file.path(), IndexCheck::full);
  const auto quick = opened(file.path(), IndexCheck::quick);
  if (!quick) {
    require(!full);  // what the quick check refuses, the full one does
    return;
  }
  require(verified(*quick) == full.has_value());
  const auto rows = located(*quick);
  if (full) require(rows.has_value());
  if (!rows) return;
  for (const Row row : *rows) {
    const std::uint64_t item = item_size(quick->type());
    require(row.offset % item == 0 && row.offset <= quick->bin_bytes());
    require(row.length <= (quick->bin_bytes() - row.offset) / item);
  }
  if (full && full->bin_bytes() <= most_bin_bytes && full->rows() <= most_rows) {
    read_all(file.path(), *full, size > 33 ? data[size - 1] + 7U * data[33] : 0);
  }
}

}  // namespace
}  // namespace pythia_fast

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pythia_fast::check(data, size);
  return 0;
}
