// The integer types that token ids are stored in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pythia_fast {

enum class IdType { u8, i8, i16, i32, i64, u16, u32, u64 };

inline std::size_t item_size(IdType type) {
  constexpr std::array<std::size_t, 8> sizes{1, 1, 2, 4, 8, 2, 4, 8};
  return sizes[static_cast<std::size_t>(type)];
}

// NumPy's name for it.
inline const char* name(IdType type) {
  constexpr std::array<const char*, 8> names{"uint8", "int8",   "int16",  "int32",
                                             "int64", "uint16", "uint32", "uint64"};
  return names[static_cast<std::size_t>(type)];
}

// Calls visit(T{}) with the C++ type that `type` stands for.
template <typename Visit>
auto with_type(IdType type, Visit visit) {
  switch (type) {
    case IdType::u8:
      return visit(std::uint8_t{});
    case IdType::i8:
      return visit(std::int8_t{});
    case IdType::i16:
      return visit(std::int16_t{});
    case IdType::i32:
      return visit(std::int32_t{});
    case IdType::i64:
      return visit(std::int64_t{});
    case IdType::u16:
      return visit(std::uint16_t{});
    case IdType::u32:
      return visit(std::uint32_t{});
    case IdType::u64:
      return visit(std::uint64_t{});
  }
  __builtin_unreachable();
}

}  // namespace pythia_fast
