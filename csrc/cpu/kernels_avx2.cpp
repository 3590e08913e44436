#define PF_ISA avx2
#include "cpu/all_kernels.h"

namespace pythia_fast::cpu {

const Kernels& avx2_f32() { return PF_ISA::table<PF_ISA::F32>; }

}  // namespace pythia_fast::cpu
