#define PF_ISA avx512
#include "cpu/all_kernels.h"

namespace pythia_fast::cpu {

const Kernels& avx512_f32() { return PF_ISA::table<PF_ISA::F32>; }

}  // namespace pythia_fast::cpu
