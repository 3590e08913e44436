// What the processor can do, found out at run time. Each level includes those before it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pythia_fast {

enum class Isa {
  portable,
  avx2,    // AVX2, FMA, F16C
  avx512,  // AVX-512 F, BW, DQ, VL
  amx,     // AMX tiles of bfloat16, AVX-512 BF16
};

// Whether this processor has `isa` and the system lets us use it. The first call for `amx` asks the
// kernel for the tile registers, once and for the whole process.
bool supported(Isa isa);

Isa best_isa();
std::string_view name(Isa isa);
std::vector<std::string> isa_names();  // the supported ones, slowest first
Isa isa_named(std::string_view name);  // ArgumentError for one unknown or not supported here

}  // namespace pythia_fast
