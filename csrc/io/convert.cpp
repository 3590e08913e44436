#include "io/convert.h"

#include <array>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "io/errors.h"
#include "io/float_formats.h"

namespace pythia_fast {

FloatType float_type(std::string_view name) {
  if (name == "F16") return FloatType::f16;
  if (name == "BF16") return FloatType::bf16;
  if (name == "F32") return FloatType::f32;
  if (name == "F64") return FloatType::f64;
  throw ArgumentError("dtype must be one of F16, BF16, F32 and F64, got '" + std::string(name) +
                      "'");
}

std::size_t item_size(FloatType type) {
  constexpr std::array<std::size_t, float_types> sizes{2, 2, 4, 8};
  return sizes[static_cast<std::size_t>(type)];
}

void finish_stores() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

Convert converter(FloatType source, FloatType destination, [[maybe_unused]] Isa isa) {
  Convert chosen = nullptr;
#if defined(__x86_64__)
  if (isa == Isa::amx) chosen = convert_amx(source, destination);
  if (isa == Isa::avx512) chosen = convert_avx512(source, destination);
  if (isa == Isa::avx2) chosen = convert_avx2(source, destination);
#endif
  return chosen != nullptr ? chosen : convert_portable(source, destination);
}

}  // namespace pythia_fast
