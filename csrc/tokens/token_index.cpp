#include "tokens/token_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

#include "io/errors.h"
#include "io/guard.h"
#include "io/workers.h"

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

constexpr std::uint64_t small_bytes = std::uint64_t{64} << 20;
constexpr std::uint64_t piece_rows = std::uint64_t{1} << 18;  // 3 MB of one thread's check
constexpr std::uint64_t block_rows = std::uint64_t{1} << 12;  // looked at again if one is wrong

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace

// What the file says of one row, as it is now.
struct TokenIndex::Entry {
  std::int32_t size;
  std::int64_t pointer;
  std::int64_t next;  // where the next row begins, or all end
};

TokenIndex::TokenIndex(std::string path, IndexCheck check) : mapping_(std::move(path)) {
  check_header();
  const bool small = mapping_.bytes().size() <= small_bytes;
  all_checked_ = check == IndexCheck::full || (check == IndexCheck::by_size && small);
  if (all_checked_) verify(1);
  check_ends();
}

void TokenIndex::refuse(std::uint64_t offset, const std::string& reason) const {
  mapping_.require_unchanged();  // of a file that has shrunk the last page reads as zeros
  throw TokenFileError(path(), reason, offset);
}

std::uint64_t TokenIndex::size_at(std::uint64_t row) const { return header_bytes + 4 * row; }

std::uint64_t TokenIndex::pointer_at(std::uint64_t row) const {
  return header_bytes + 4 * rows_ + 8 * row;
}

std::uint64_t TokenIndex::document_at(std::uint64_t document) const {
  return header_bytes + 12 * rows_ + 8 * document;
}

// Calls work(begin of the file), which may meet a page that is gone.
template <typename Work>
void TokenIndex::read(Work work) const {
  const std::array<Bytes, 1> whole{mapping_.bytes()};
  auto reading = [&]() noexcept { work(whole[0].data()); };
  if (guarded(whole, reading) != nullptr) mapping_.unreadable();
}

void TokenIndex::check_header() {
  const std::uint64_t size = mapping_.bytes().size();
  if (size < header_bytes) {
    refuse(size,
           "the file ends here, within the header of " + std::to_string(header_bytes) + " bytes");
  }
  std::array<std::byte, header_bytes> header{};
  read([&](const std::byte* file) { std::memcpy(header.data(), file, header.size()); });
  if (std::memcmp(header.data(), magic.data(), magic.size()) != 0) {
    refuse(0, "this is no token index: it does not begin with MMIDIDX");
  }
  const auto version = load<std::uint64_t>(&header[version_at]);
  if (version != 1) {
    refuse(version_at, "version " + std::to_string(version) + " of the format; only 1 is known");
  }
  const auto code = load<std::uint8_t>(&header[type_at]);
  constexpr std::array known{IdType::u8,  IdType::i8,  IdType::i16, IdType::i32,
                             IdType::i64, IdType::i64, IdType::i64, IdType::u16};
  if (code == 6 || code == 7) {
    refuse(type_at, "dtype code " + std::to_string(code) +
                        " stands for floating-point numbers, which are no token ids");
  }
  if (code < 1 || code > known.size()) {
    refuse(type_at, "unknown dtype code " + std::to_string(code) + " (known are 1 to 8)");
  }
  type_ = known[code - std::size_t{1}];
  rows_ = load<std::uint64_t>(&header[rows_at]);
  documents_ = load<std::uint64_t>(&header[documents_at]);

  std::uint64_t row_bytes = 0;
  std::uint64_t document_bytes = 0;
  std::uint64_t expected = 0;
  const bool overflow = __builtin_mul_overflow(rows_, std::uint64_t{12}, &row_bytes) ||
                        __builtin_mul_overflow(documents_, std::uint64_t{8}, &document_bytes) ||
                        __builtin_add_overflow(row_bytes, document_bytes, &expected) ||
                        __builtin_add_overflow(expected, header_bytes, &expected);
  if (overflow || expected != size) {
    refuse(rows_at, std::to_string(rows_) + " sequences and " + std::to_string(documents_) +
                        " documents take " +
                        (overflow ? "more than 2^64" : std::to_string(expected)) +
                        " bytes (34 + 12 a sequence + 8 a document), but the file has " +
                        std::to_string(size));
  }
}

// The first and the last row, and with it what the .bin needs.
void TokenIndex::check_ends() {
  if (rows_ == 0) return;
  verify_rows(0, 1);
  const std::uint64_t last = rows_ - 1;
  Entry entry{};
  read([&](const std::byte* file) {
    entry.size = load<std::int32_t>(file + size_at(last));
    entry.pointer = load<std::int64_t>(file + pointer_at(last));
  });
  if (entry.size < 0) {
    refuse(size_at(last),
           "sequence " + std::to_string(last) + " has " + std::to_string(entry.size) + " tokens");
  }
  const std::uint64_t item = item_size(type_);
  const auto begin = static_cast<std::uint64_t>(entry.pointer);
  if (entry.pointer < 0 || begin % item != 0) {
    refuse(pointer_at(last), "sequence " + std::to_string(last) + " is said to begin at byte " +
                                 std::to_string(entry.pointer) +
                                 " of the .bin, where none of its ids can begin");
  }
  bin_bytes_ = begin + static_cast<std::uint64_t>(entry.size) * item;  // below 2^63 + 2^34
}

void TokenIndex::locate(std::span<const std::int64_t> rows, std::span<Row> result) const {
  std::array<Entry, 1024> entries;
  for (std::size_t begin = 0; begin < rows.size(); begin += entries.size()) {
    const auto some = rows.subspan(begin, std::min(entries.size(), rows.size() - begin));
    prefetch(some);
    read([&](const std::byte* file) {
      for (std::size_t i = 0; i < some.size(); ++i) {
        const auto row = static_cast<std::uint64_t>(some[i]);
        entries[i].size = load<std::int32_t>(file + size_at(row));
        entries[i].pointer = load<std::int64_t>(file + pointer_at(row));
        entries[i].next = row + 1 < rows_ ? load<std::int64_t>(file + pointer_at(row + 1))
                                          : static_cast<std::int64_t>(bin_bytes_);
      }
    });
    for (std::size_t i = 0; i < some.size(); ++i) {
      result[begin + i] = checked(static_cast<std::uint64_t>(some[i]), entries[i]);
    }
  }
}

Row TokenIndex::checked(std::uint64_t row, const Entry& entry) const {
  const std::uint64_t item = item_size(type_);
  const auto begin = static_cast<std::uint64_t>(entry.pointer);
  const std::uint64_t length = static_cast<std::uint64_t>(entry.size);
  const bool begins = entry.pointer >= 0 && begin <= bin_bytes_ && begin % item == 0;
  const bool inside = begins && entry.size >= 0 && length <= (bin_bytes_ - begin) / item;
  const std::uint64_t end = begin + length * item;
  if (inside && end == static_cast<std::uint64_t>(entry.next)) return {begin, length};
  const std::string name = "sequence " + std::to_string(row);
  if (all_checked_) {
    mapping_.require_unchanged();
    throw TokenFileError(
        path(), name + " does not lie in the .bin: the index has changed since it was opened",
        std::nullopt);
  }
  if (entry.size < 0) {
    refuse(size_at(row), name + " has " + std::to_string(entry.size) + " tokens");
  }
  if (!begins) {
    refuse(pointer_at(row), name + " is said to begin at byte " + std::to_string(entry.pointer) +
                                " of the .bin, where none of its " + std::to_string(bin_bytes_) +
                                " bytes is the first of an id");
  }
  if (row + 1 == rows_) {
    refuse(size_at(row), name + ", the last one, ended at byte " + std::to_string(bin_bytes_) +
                             " of the .bin when the index was opened, and ends at byte " +
                             std::to_string(end) + " now");
  }
  refuse(pointer_at(row + 1), "sequence " + std::to_string(row + 1) + " is said to begin at byte " +
                                  std::to_string(entry.next) +
                                  " of the .bin, but those before it end at byte " +
                                  std::to_string(end));
}

// Of an index that is on the disk: its pages are asked for together, not waited for one by one.
void TokenIndex::prefetch(std::span<const std::int64_t> rows) const {
  constexpr std::size_t samples = 4;
  if (rows.size() < samples) return;
  bool cold = false;
  for (std::size_t i = 0; i < samples && !cold; ++i) {
    const std::int64_t row = rows[i * (rows.size() - 1) / (samples - 1)];
    cold = !mapping_.in_memory(pointer_at(static_cast<std::uint64_t>(row)));
  }
  if (!cold) return;
  std::uint64_t before = pointer_at(rows_);
  for (const std::int64_t row : rows) {
    const auto at = static_cast<std::uint64_t>(row);
    constexpr std::uint64_t near = 256;  // in the same pages, or nearly so
    if (at - before < near) continue;
    mapping_.will_need(size_at(at), 4 * near);
    mapping_.will_need(pointer_at(at), 8 * near);
    before = at;
  }
}

void TokenIndex::verify(std::size_t threads) const {
  require_unchanged();
  const auto pieces = [](std::uint64_t number) { return (number + piece_rows - 1) / piece_rows; };
  const auto check = [&](std::uint64_t number, auto one_piece) {
    share(pieces(number), threads, [&](std::size_t piece) {
      const std::uint64_t begin = piece * piece_rows;
      one_piece(begin, std::min(number, begin + piece_rows));
    });
  };
  check(rows_, [this](std::uint64_t begin, std::uint64_t end) { verify_rows(begin, end); });
  check(documents_,
        [this](std::uint64_t begin, std::uint64_t end) { verify_documents(begin, end); });
  require_unchanged();
}

// Each row has a size and begins where the one before it ends. That needs no more than the row
// before, so that threads may begin anywhere.
void TokenIndex::verify_rows(std::uint64_t begin, std::uint64_t end) const {
  const std::uint64_t item = item_size(type_);
  std::uint64_t wrong = end;  // the first row that is
  std::int32_t size = 0;
  std::int64_t pointer = 0;
  std::uint64_t before_it = 0;  // where the row before ends
  if (!mapping_.in_memory(pointer_at(begin))) {
    mapping_.will_need(size_at(begin), 4 * (end - begin));
    mapping_.will_need(pointer_at(begin), 8 * (end - begin));
  }
  read([&](const std::byte* file) {
    const std::byte* sizes = file + size_at(0);
    const std::byte* pointers = file + pointer_at(0);
    const auto end_of = [&](std::uint64_t row) {
      return static_cast<std::uint64_t>(load<std::int64_t>(pointers + 8 * row)) +
             static_cast<std::uint64_t>(std::int64_t{load<std::int32_t>(sizes + 4 * row)}) * item;
    };
    const auto is_wrong = [&](std::uint64_t row, std::uint64_t expected) {
      const auto tokens = load<std::int32_t>(sizes + 4 * row);
      const auto at = load<std::int64_t>(pointers + 8 * row);
      return (tokens < 0) | (at < 0) | (static_cast<std::uint64_t>(at) != expected);
    };
    for (std::uint64_t block = begin; block < end; block += block_rows) {
      const std::uint64_t stop = std::min(end, block + block_rows);
      bool any = is_wrong(block, block == 0 ? 0 : end_of(block - 1));
      for (std::uint64_t row = block + 1; row < stop; ++row) any |= is_wrong(row, end_of(row - 1));
      if (!any) continue;
      std::uint64_t row = block;
      while (row + 1 < stop && !is_wrong(row, row == 0 ? 0 : end_of(row - 1))) ++row;
      wrong = row;
      size = load<std::int32_t>(sizes + 4 * row);
      pointer = load<std::int64_t>(pointers + 8 * row);
      before_it = row == 0 ? 0 : end_of(row - 1);
      return;
    }
  });
  if (wrong == end) return;
  if (size < 0) {
    refuse(size_at(wrong),
           "sequence " + std::to_string(wrong) + " has " + std::to_string(size) + " tokens");
  }
  refuse(pointer_at(wrong), "sequence " + std::to_string(wrong) + " is said to begin at byte " +
                                std::to_string(pointer) +
                                " of the .bin, but those before it end at byte " +
                                std::to_string(before_it));
}

void TokenIndex::verify_documents(std::uint64_t begin, std::uint64_t end) const {
  std::uint64_t wrong = end;
  std::int64_t found = 0;
  std::int64_t before_it = 0;
  read([&](const std::byte* file) {
    const std::byte* documents = file + document_at(0);
    std::int64_t before = begin == 0 ? 0 : load<std::int64_t>(documents + 8 * (begin - 1));
    for (std::uint64_t i = begin; i < end; ++i) {
      const auto document = load<std::int64_t>(documents + 8 * i);
      if (document < before || static_cast<std::uint64_t>(document) > rows_) {
        wrong = i;
        found = document;
        before_it = before;
        return;
      }
      before = document;
    }
  });
  if (wrong == end) return;
  refuse(document_at(wrong), "document " + std::to_string(wrong) + " begins at sequence " +
                                 std::to_string(found) +
                                 (found < before_it ? ", before " + std::to_string(before_it)
                                                    : ", but there are " + std::to_string(rows_)));
}

}  // namespace pythia_fast
