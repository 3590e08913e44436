// Token ids of one type into those of another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "io/errors.h"
#include "isa.h"
#include "tokens/id_type.h"

namespace pythia_fast {

// Copies `count` ids and returns that, or the position of the first one that the new type cannot
// hold. `from` need not be aligned, `to` is aligned to its type. Nothing in it is to be destroyed
// (io/guard.h).
using CopyIds = std::uint64_t (*)(const std::byte* from, std::byte* to, std::uint64_t count);

// The ways to copy that are streamed past the caches, or null where there is none. A result that
// is larger than they are gains by it what each of its lines would have cost to be fetched first.
// Another thread may look at it after `finish_stores`.
CopyIds copy_ids_avx2(IdType from, IdType to);

// The best one for this processor. Ids are gathered as i64, i32 or u16: ArgumentError for another.
CopyIds copy_ids(IdType from, IdType to, bool streamed);

// One id where it lies.
template <typename T>
T load_id(const std::byte* from) {
  T id;
  std::memcpy(&id, from, sizeof(T));
  return id;
}

// visit(T{}) with the C++ type of an output.
template <typename Visit>
auto with_output_type(IdType type, Visit visit) {
  if (type == IdType::i64) return visit(std::int64_t{});
  if (type == IdType::i32) return visit(std::int32_t{});
  if (type == IdType::u16) return visit(std::uint16_t{});
  throw ArgumentError(std::string("ids are gathered as int64, int32 or uint16, not as ") +
                      name(type));
}

template <typename To, typename From>
constexpr bool holds_all() {
  using Limits = std::numeric_limits<From>;
  return std::in_range<To>(Limits::min()) && std::in_range<To>(Limits::max());
}

}  // namespace pythia_fast
