#include "tokens/copy_ids.h"

namespace pythia_fast {
namespace {

template <typename To, typename From>
std::uint64_t copy(const std::byte* from, std::byte* destination, std::uint64_t count) {
  auto* to = reinterpret_cast<To*>(destination);
  if constexpr (std::is_same_v<To, From>) {
    if (count > 0) std::memcpy(to, from, count * sizeof(To));
    return count;
  } else if constexpr (holds_all<To, From>()) {
    for (std::uint64_t i = 0; i < count; ++i) {
      to[i] = static_cast<To>(load_id<From>(from + i * sizeof(From)));
    }
    return count;
  } else {
    bool fits = true;  // no early exit: the loop stays one that compilers vectorise
    for (std::uint64_t i = 0; i < count; ++i) {
      const From id = load_id<From>(from + i * sizeof(From));
      fits &= std::in_range<To>(id);
      to[i] = static_cast<To>(id);
    }
    if (fits) return count;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!std::in_range<To>(load_id<From>(from + i * sizeof(From)))) return i;
    }
    return count;
  }
}

}  // namespace

CopyIds copy_ids(IdType from, IdType to, bool streamed) {
  CopyIds chosen = nullptr;
#if defined(__x86_64__)
  if (streamed && supported(Isa::avx2)) chosen = copy_ids_avx2(from, to);
#endif
  if (chosen != nullptr) return chosen;
  return with_output_type(to, [from]<typename To>(To) {
    return with_type(from, []<typename From>(From) -> CopyIds { return copy<To, From>; });
  });
}

}  // namespace pythia_fast
