// What a TokenStore and an OrderedStore have in common, for Python.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "bindings.h"
#include "io/errors.h"
#include "tokens/token_store.h"

namespace pythia_fast {

inline constexpr int row_flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;

// A one-dimensional contiguous int64 buffer.
inline std::span<std::int64_t> int64_vector(const Buffer& buffer, const char* name) {
  if (buffer.view().ndim != 1 || id_type(buffer.view(), name) != IdType::i64) {
    throw ArgumentError(std::string(name) + " must be a vector of int64");
  }
  return {static_cast<std::int64_t*>(buffer.view().buf),
          static_cast<std::size_t>(buffer.view().shape[0])};
}

template <typename Store>
void store_lengths(const Store& store, const py::object& rows, const py::object& result) {
  const Buffer rows_buffer(rows, row_flags, "rows");
  const Buffer result_buffer(result, row_flags | PyBUF_WRITABLE, "out");
  const auto from = int64_vector(rows_buffer, "rows");
  const auto to = int64_vector(result_buffer, "out");
  const Unlocked unlocked;
  store.lengths(from, to);
}

template <typename Store>
void store_gather(const Store& store, const py::object& rows, const py::object& start,
                  const py::object& stop, const py::object& result, const py::object& threads) {
  const Columns columns{count(start, "start"), count(stop, "stop")};
  const std::size_t workers = thread_count(threads);
  const Buffer rows_buffer(rows, row_flags, "rows");
  const auto selected = int64_vector(rows_buffer, "rows");
  const Buffer result_buffer(result, PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE, "out");
  const Py_buffer& view = result_buffer.view();
  const IdType type = id_type(view, "out");
  const auto item = static_cast<py::ssize_t>(item_size(type));
  if (view.ndim != 2 || (view.shape[1] > 1 && view.strides[1] != item)) {
    throw ArgumentError("out must be a matrix whose rows are contiguous");
  }
  if (reinterpret_cast<std::uintptr_t>(view.buf) % item_size(type) != 0 ||
      view.strides[0] % item != 0) {
    throw ArgumentError("out is not aligned to its dtype");
  }
  const Matrix matrix{static_cast<std::byte*>(view.buf), type,
                      static_cast<std::uint64_t>(view.shape[0]),
                      static_cast<std::uint64_t>(view.shape[1]), view.strides[0]};
  const Unlocked unlocked;
  store.gather(selected, columns, matrix, workers);
}

template <typename Store>
py::object store_find_outside(const Store& store, const py::object& rows,
                              const py::object& limit_object, const py::object& threads) {
  const std::uint64_t limit = count(limit_object, "limit");
  const std::size_t workers = thread_count(threads);
  const Buffer rows_buffer(rows, row_flags, "rows");
  const auto selected = int64_vector(rows_buffer, "rows");
  std::optional<Outside> found;
  {
    const Unlocked unlocked;
    found = store.find_outside(selected, limit, workers);
  }
  if (!found) return py::none();
  return py::make_tuple(found->position, found->offset, found->id);
}

template <typename Store>
void store_verify(const Store& store, const py::object& threads) {
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  store.verify(workers);
}

template <typename Store>
void bind_rows(py::class_<Store, std::shared_ptr<Store>>& store) {
  store.def("__len__", &Store::rows)
      .def_property_readonly("dtype", [](const Store& self) { return name(self.type()); })
      .def("verify", &store_verify<Store>, py::arg("threads"),
           "Check all of the index: TokenFileError for the first row or document that is wrong.")
      .def("lengths", &store_lengths<Store>, py::arg("rows"), py::arg("out"),
           "Write the number of tokens of each row into `out`.")
      .def("gather", &store_gather<Store>, py::arg("rows"), py::arg("start"), py::arg("stop"),
           py::arg("out"), py::arg("threads"),
           R"(Copy tokens [start, stop) of each row into the rows of `out`, padded right with 0.

`out` holds int64, int32 or uint16. ArgumentError where a row does not fit its width or an id does
not fit its dtype. After an error the content of `out` is undefined.)")
      .def(
          "find_outside", &store_find_outside<Store>, py::arg("rows"), py::arg("limit"),
          py::arg("threads"),
          R"(The first id outside [0, limit): (position in `rows`, offset in the row, id), or None.)");
}

}  // namespace pythia_fast
