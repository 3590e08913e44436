// Weights packed once for all products of a checkpoint: the blocks of 32 rows that `product` would
// pack on its way, all columns of a block in one piece, so that any cut of them lies in one piece
// too.
#pragma once

#include "cpu/heads.h"

namespace pythia_fast::cpu::PF_ISA {

template <typename M, typename Source>
void pack_of(const PackWork& work, void*) {
  const auto* data = static_cast<const Source*>(work.weight.data);
  auto* to = static_cast<typename M::Element*>(work.to);
  const HeadOrder heads(work.order);
  const std::int64_t columns = work.weight.columns;
  for (std::int64_t first = work.row_begin; first < work.row_end; first += block_rows) {
    const auto row = [&](int i) -> const Source* {
      std::int64_t number = first + i;
      if (work.order.features != 0) number = heads.source(number);
      return number < 0 || number >= work.weight.rows ? nullptr
                                                      : data + number * work.weight.stride;
    };
    pack_block<Source>(M{}, row, 0, columns, to);
    to += block_rows * padded(columns) * M::planes;
  }
}

PF_BY_STORED_TYPE(pack, PackWork)

}  // namespace pythia_fast::cpu::PF_ISA
