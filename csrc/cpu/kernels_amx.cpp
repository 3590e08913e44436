#define PF_ISA amx
#define PF_TILES  // compilers disagree on the macro by which they say so
#include "cpu/all_kernels.h"

namespace pythia_fast::cpu {

const Kernels& amx_bf16() { return PF_ISA::table<PF_ISA::Bf16>; }
const Kernels& amx_split() { return PF_ISA::table<PF_ISA::Split>; }

}  // namespace pythia_fast::cpu
