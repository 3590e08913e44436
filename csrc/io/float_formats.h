// The four formats as types, for the files that convert them.
#pragma once

#include <cstdint>

#include "io/convert.h"

#define PF_INLINE __attribute__((always_inline)) inline

namespace pythia_fast {

// `exponent`: the bits that are all set in NaN and infinity, and in nothing else.
struct F16 {
  using Bits = std::uint16_t;
  static constexpr Bits exponent = 0x7c00;
};
struct BF16 {
  using Bits = std::uint16_t;
  static constexpr Bits exponent = 0x7f80;
};
struct F32 {
  using Bits = std::uint32_t;
  static constexpr Bits exponent = 0x7f800000;
};
struct F64 {
  using Bits = std::uint64_t;
  static constexpr Bits exponent = 0x7ff0000000000000;
};

// Calls visit(Format{}) with the type that `type` stands for.
template <typename Visit>
auto with_format(FloatType type, Visit visit) {
  switch (type) {
    case FloatType::f16:
      return visit(F16{});
    case FloatType::bf16:
      return visit(BF16{});
    case FloatType::f32:
      return visit(F32{});
    case FloatType::f64:
      return visit(F64{});
  }
  __builtin_unreachable();
}

// One version an instruction set, in a file each: the same bits from all of them.
Convert convert_portable(FloatType source, FloatType destination);
#if defined(__x86_64__)
// Null where one of the two is float64, which nobody's checkpoints hold.
Convert convert_avx2(FloatType source, FloatType destination);
Convert convert_avx512(FloatType source, FloatType destination);
Convert convert_amx(FloatType source, FloatType destination);
#endif

}  // namespace pythia_fast
