// The table of one arithmetic's kernels. Included once by each kernels_<isa>.cpp.
#pragma once

#include "cpu/attention.h"
#include "cpu/cross_entropy.h"
#include "cpu/decode.h"
#include "cpu/embed.h"
#include "cpu/heads.h"
#include "cpu/mlp.h"
#include "cpu/norm.h"
#include "cpu/pack.h"
#include "cpu/project.h"

namespace pythia_fast::cpu::PF_ISA {

constexpr std::size_t larger(std::size_t a, std::size_t b) { return a > b ? a : b; }

template <typename M>
constexpr std::size_t scratch_bytes =
    larger(sizeof(ProductScratch<M>),
           larger(sizeof(typename Attention<M>::Scratch), sizeof(typename Decode<M>::Scratch)));

template <typename M>
constexpr Kernels table{embed<M>,
                        pack<M>,
                        pick<M>,
                        norm<M>,
                        heads<M>,
                        attention<M>,
                        mlp<M>,
                        residual<M>,
                        cross_entropy<M>,
                        unpack,
                        project<M>,
                        decode<M>,
                        sizeof(typename M::Element),
                        static_cast<std::size_t>(M::planes),
                        M::block_k,
                        scratch_bytes<M>};

}  // namespace pythia_fast::cpu::PF_ISA
