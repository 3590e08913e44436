#define PF_ISA portable
#include "cpu/all_kernels.h"

namespace pythia_fast::cpu {

const Kernels& portable_f32() { return PF_ISA::table<PF_ISA::F32>; }

}  // namespace pythia_fast::cpu
