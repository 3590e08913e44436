#include "cpu/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "io/workers.h"

namespace pythia_fast::cpu {

PackedWeight::PackedWeight(const Kernels& kernels, std::int64_t rows, std::int64_t columns,
                           const RowOrder& order)
    : kernels_(kernels), rows_(rows), columns_(columns), order_(order) {
  const std::int64_t parts = order.features == 0 ? 0 : rows / order.features;  // [heads][3]
  product_rows_ = padded(parts == 0 ? rows : parts * padded(order.features));
  row_bytes_ = padded(columns) * static_cast<std::int64_t>(kernels.planes * kernels.element_bytes);
  bytes_ = static_cast<std::size_t>(product_rows_ * row_bytes_);
  memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  ::madvise(memory_, bytes_, MADV_HUGEPAGE);
#endif
}

PackedWeight::~PackedWeight() { ::munmap(memory_, bytes_); }

void PackedWeight::pack(const Weight& matrix, std::size_t threads) {
  constexpr std::int64_t each = 128;  // rows
  const auto pieces = static_cast<std::size_t>((product_rows_ + each - 1) / each);
  share(pieces, threads, [&](std::size_t piece) {
    const std::int64_t row = static_cast<std::int64_t>(piece) * each;
    const PackWork work{matrix, order_, static_cast<std::byte*>(memory_) + row * row_bytes_, row,
                        std::min(product_rows_, row + each)};
    kernels_.pack(work, nullptr);
  });
}

}  // namespace pythia_fast::cpu
