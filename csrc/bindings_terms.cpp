// How often terms occur in rows of token ids.
#include <memory>
#include <vector>

#include "bindings_rows.h"
#include "io/errors.h"
#include "tokens/count_terms.h"

namespace pythia_fast {
namespace {

std::span<const std::uint8_t> byte_vector(const Buffer& buffer, const char* name) {
  if (buffer.view().ndim != 1 || id_type(buffer.view(), name) != IdType::u8) {
    throw ArgumentError(std::string(name) + " must be a vector of uint8");
  }
  return {static_cast<const std::uint8_t*>(buffer.view().buf),
          static_cast<std::size_t>(buffer.view().shape[0])};
}

std::unique_ptr<TermCounter> make_counter(const py::object& ids, const py::object& bounds,
                                          const py::object& left, const py::object& right,
                                          const py::object& begins, const py::object& ends) {
  const Buffer ids_buffer(ids, row_flags, "ids");
  const Buffer bounds_buffer(bounds, row_flags, "bounds");
  const Buffer left_buffer(left, row_flags, "left");
  const Buffer right_buffer(right, row_flags, "right");
  const Buffer begins_buffer(begins, row_flags, "begins");
  const Buffer ends_buffer(ends, row_flags, "ends");
  const auto left_bits = byte_vector(left_buffer, "left");
  const auto right_bits = byte_vector(right_buffer, "right");
  if (left_bits.size() != right_bits.size()) {
    throw ArgumentError("left has " + std::to_string(left_bits.size()) + " terms, right " +
                        std::to_string(right_bits.size()));
  }
  std::vector<Sides> sides;
  for (std::size_t i = 0; i < left_bits.size(); ++i) sides.push_back({left_bits[i], right_bits[i]});
  return std::make_unique<TermCounter>(
      int64_vector(ids_buffer, "ids"), int64_vector(bounds_buffer, "bounds"), sides,
      Edges{byte_vector(begins_buffer, "begins"), byte_vector(ends_buffer, "ends")});
}

void count_rows(const TermCounter& counter, const py::object& ids, const py::object& lengths,
                const py::object& counts, const py::object& threads) {
  const std::size_t workers = thread_count(threads);
  const Buffer ids_buffer(ids, row_flags, "ids");
  const Py_buffer& view = ids_buffer.view();
  if (view.ndim != 2) throw ArgumentError("ids must be a matrix");
  const IdType type = id_type(view, "ids");
  const Buffer lengths_buffer(lengths, row_flags, "lengths");
  const Buffer counts_buffer(counts, row_flags | PyBUF_WRITABLE, "counts");
  const auto of_rows = int64_vector(lengths_buffer, "lengths");
  const auto to = int64_vector(counts_buffer, "counts");
  const auto columns = static_cast<std::uint64_t>(view.shape[1]);
  const Matrix matrix{static_cast<std::byte*>(view.buf), type,
                      static_cast<std::uint64_t>(view.shape[0]), columns,
                      static_cast<std::int64_t>(columns * item_size(type))};
  const Unlocked unlocked;
  counter.count(matrix, of_rows, to, workers);
}

}  // namespace

void bind_terms(py::module_& m) {
  py::class_<TermCounter>(m, "TermCounter",
                          R"(Counts how often many sequences of ids occur, in one pass.

Term i is ids[bounds[i]:bounds[i + 1]], all vectors of int64. `begins` and `ends`, vectors of uint8,
say by bits what the text of each id begins and ends with; term i does not count after an id that
ends with a bit of left[i], nor before one that begins with a bit of right[i]. ArgumentError for
terms that are empty, the same, or hold what is no id.)")
      .def(py::init(&make_counter), py::arg("ids"), py::arg("bounds"), py::arg("left"),
           py::arg("right"), py::arg("begins"), py::arg("ends"))
      .def("__len__", &TermCounter::terms)
      .def("count", &count_rows, py::arg("ids"), py::arg("lengths"), py::arg("counts"),
           py::arg("threads"),
           R"(Add to `counts`, [terms] int64, what the rows of `ids` have.

`ids` is a C-ordered matrix of int64, int32 or uint16, whose row r has lengths[r] ids. Terms may
overlap; none reaches from one row into the next.)");
}

}  // namespace pythia_fast
