#include "tokens/token_index.h"

#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "io/errors.h"

namespace pythia_fast {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is read as it lies");

using namespace std::string_view_literals;
constexpr std::string_view magic = "MMIDIDX\0\0"sv;
constexpr std::uint64_t version_at = 9;
constexpr std::uint64_t type_at = 17;
constexpr std::uint64_t rows_at = 18;
constexpr std::uint64_t documents_at = 26;
constexpr std::uint64_t header_bytes = 34;

template <typename T>
T load(const Mapping& mapping, std::uint64_t offset) {
  T value;
  std::memcpy(&value, mapping.bytes().data() + offset, sizeof(T));
  return value;
}

[[noreturn]] void refuse(const Mapping& mapping, std::uint64_t offset, const std::string& reason) {
  throw TokenFileError(mapping.path(), reason, offset);
}

IdType id_type(const Mapping& mapping) {
  const auto code = load<std::uint8_t>(mapping, type_at);
  switch (code) {
    case 1:
      return IdType::u8;
    case 2:
      return IdType::i8;
    case 3:
      return IdType::i16;
    case 4:
      return IdType::i32;
    case 5:
      return IdType::i64;
    case 6:
    case 7:
      refuse(mapping, type_at,
             "dtype code " + std::to_string(code) +
                 " stands for floating-point numbers, which are no token ids");
    case 8:
      return IdType::u16;
    default:
      refuse(mapping, type_at,
             "unknown dtype code " + std::to_string(code) + " (known are 1 to 8)");
  }
}

std::uint64_t pointers_at(std::uint64_t rows) { return header_bytes + 4 * rows; }

}  // namespace

TokenIndex::TokenIndex(std::string path) : mapping_(std::move(path)) {
  check_header();
  check_rows();
  check_documents();
}

Row TokenIndex::row(std::uint64_t index) const {
  const auto size = load<std::int32_t>(mapping_, header_bytes + 4 * index);
  const auto pointer = load<std::int64_t>(mapping_, pointers_at(rows_) + 8 * index);
  // A negative number, which only a change of the file can bring, is far beyond any file here.
  return {static_cast<std::uint64_t>(pointer), static_cast<std::uint64_t>(std::int64_t{size})};
}

void TokenIndex::check_header() {
  const std::uint64_t size = mapping_.bytes().size();
  if (size < header_bytes) {
    refuse(mapping_, size,
           "the file ends here, within the header of " + std::to_string(header_bytes) + " bytes");
  }
  if (std::memcmp(mapping_.bytes().data(), magic.data(), magic.size()) != 0) {
    refuse(mapping_, 0, "this is no token index: it does not begin with MMIDIDX");
  }
  const auto version = load<std::uint64_t>(mapping_, version_at);
  if (version != 1) {
    refuse(mapping_, version_at,
           "version " + std::to_string(version) + " of the format; only 1 is known");
  }
  type_ = id_type(mapping_);
  rows_ = load<std::uint64_t>(mapping_, rows_at);
  documents_ = load<std::uint64_t>(mapping_, documents_at);

  std::uint64_t row_bytes = 0;
  std::uint64_t document_bytes = 0;
  std::uint64_t expected = 0;
  const bool overflow = __builtin_mul_overflow(rows_, std::uint64_t{12}, &row_bytes) ||
                        __builtin_mul_overflow(documents_, std::uint64_t{8}, &document_bytes) ||
                        __builtin_add_overflow(row_bytes, document_bytes, &expected) ||
                        __builtin_add_overflow(expected, header_bytes, &expected);
  if (overflow || expected != size) {
    refuse(mapping_, rows_at,
           std::to_string(rows_) + " sequences and " + std::to_string(documents_) +
               " documents take " + (overflow ? "more than 2^64" : std::to_string(expected)) +
               " bytes (34 + 12 a sequence + 8 a document), but the file has " +
               std::to_string(size));
  }
}

void TokenIndex::check_rows() {
  const std::uint64_t item = item_size(type_);
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; i < rows_; ++i) {
    const std::uint64_t size_at = header_bytes + 4 * i;
    const std::uint64_t pointer_at = pointers_at(rows_) + 8 * i;
    const auto size = load<std::int32_t>(mapping_, size_at);
    const auto pointer = load<std::int64_t>(mapping_, pointer_at);
    if (size < 0) {
      refuse(mapping_, size_at,
             "sequence " + std::to_string(i) + " has " + std::to_string(size) + " tokens");
    }
    if (pointer < 0 || static_cast<std::uint64_t>(pointer) != end) {
      refuse(mapping_, pointer_at,
             "sequence " + std::to_string(i) + " is said to begin at byte " +
                 std::to_string(pointer) + " of the .bin, but those before it end at byte " +
                 std::to_string(end));
    }
    if (__builtin_add_overflow(end, static_cast<std::uint64_t>(size) * item, &end)) {
      refuse(mapping_, size_at, "the sequences up to this one take more than 2^64 bytes");
    }
  }
  bin_bytes_ = end;
}

void TokenIndex::check_documents() const {
  const std::uint64_t begin = pointers_at(rows_) + 8 * rows_;
  std::int64_t before = 0;
  for (std::uint64_t i = 0; i < documents_; ++i) {
    const std::uint64_t at = begin + 8 * i;
    const auto document = load<std::int64_t>(mapping_, at);
    if (document < before) {
      refuse(mapping_, at,
             "document " + std::to_string(i) + " begins at sequence " + std::to_string(document) +
                 ", before " + std::to_string(before));
    }
    if (static_cast<std::uint64_t>(document) > rows_) {
      refuse(mapping_, at,
             "document " + std::to_string(i) + " begins at sequence " + std::to_string(document) +
                 ", but there are " + std::to_string(rows_));
    }
    before = document;
  }
}

}  // namespace pythia_fast
