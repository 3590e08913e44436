// Rows of token ids.
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "bindings.h"
#include "io/errors.h"
#include "tokens/token_store.h"

namespace pythia_fast {
namespace {

constexpr int row_flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;

// A one-dimensional contiguous int64 buffer.
std::span<std::int64_t> int64_vector(const Buffer& buffer, const char* name) {
  if (buffer.view().ndim != 1 || id_type(buffer.view(), name) != IdType::i64) {
    throw ArgumentError(std::string(name) + " must be a vector of int64");
  }
  return {static_cast<std::int64_t*>(buffer.view().buf),
          static_cast<std::size_t>(buffer.view().shape[0])};
}

IndexCheck index_check(const std::optional<std::string>& name) {
  if (!name) return IndexCheck::by_size;
  if (*name == "quick") return IndexCheck::quick;
  if (*name == "full") return IndexCheck::full;
  throw ArgumentError("check must be 'quick', 'full' or None, got '" + *name + "'");
}

std::shared_ptr<TokenStore> open_store(const std::filesystem::path& index,
                                       const std::vector<std::filesystem::path>& bins,
                                       const std::optional<std::string>& check) {
  const IndexCheck chosen = index_check(check);
  std::vector<std::string> names;
  for (const std::filesystem::path& bin : bins) names.push_back(bin.native());
  const Unlocked unlocked;
  return std::make_shared<TokenStore>(index.native(), names, chosen);
}

std::shared_ptr<TokenStore> open_pair(const std::filesystem::path& index,
                                      const std::filesystem::path& bin,
                                      const std::optional<std::string>& check) {
  return open_store(index, {bin}, check);
}

std::shared_ptr<TokenStore> store_in_memory(const py::object& ids, const py::object& bounds) {
  auto owner = std::make_shared<Buffer>(ids, row_flags, "ids");
  const IdType type = id_type(owner->view(), "ids");
  const Buffer bounds_buffer(bounds, row_flags, "bounds");
  const auto values = int64_vector(bounds_buffer, "bounds");
  return std::make_shared<TokenStore>(owner->bytes(), type,
                                      std::vector<std::int64_t>(values.begin(), values.end()),
                                      std::move(owner));
}

void store_lengths(const TokenStore& store, const py::object& rows, const py::object& result) {
  const Buffer rows_buffer(rows, row_flags, "rows");
  const Buffer result_buffer(result, row_flags | PyBUF_WRITABLE, "out");
  const auto from = int64_vector(rows_buffer, "rows");
  const auto to = int64_vector(result_buffer, "out");
  const Unlocked unlocked;
  store.lengths(from, to);
}

void store_locate(const TokenStore& store, const py::object& rows, const py::object& offsets,
                  const py::object& lengths) {
  const Buffer rows_buffer(rows, row_flags, "rows");
  const Buffer offsets_buffer(offsets, row_flags | PyBUF_WRITABLE, "offsets");
  const Buffer lengths_buffer(lengths, row_flags | PyBUF_WRITABLE, "lengths");
  const auto from = int64_vector(rows_buffer, "rows");
  const auto to_offsets = int64_vector(offsets_buffer, "offsets");
  const auto to_lengths = int64_vector(lengths_buffer, "lengths");
  if (to_offsets.size() != from.size() || to_lengths.size() != from.size()) {
    throw ArgumentError(std::to_string(from.size()) + " rows do not fit vectors of " +
                        std::to_string(to_offsets.size()) + " and " +
                        std::to_string(to_lengths.size()));
  }
  const Unlocked unlocked;
  std::vector<Row> found(from.size());
  store.locate(from, found);
  for (std::size_t i = 0; i < found.size(); ++i) {
    to_offsets[i] = static_cast<std::int64_t>(found[i].offset);
    to_lengths[i] = static_cast<std::int64_t>(found[i].length);
  }
}

void store_gather(const TokenStore& store, const py::object& rows, const py::object& start,
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

void store_verify(const TokenStore& store, const py::object& threads) {
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  store.verify(workers);
}

py::object store_find_outside(const TokenStore& store, const py::object& rows,
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

}  // namespace

void bind_tokens(py::module_& m) {
  py::class_<TokenStore, std::shared_ptr<TokenStore>>(
      m, "TokenStore", R"(Rows of token ids, read-only: an .idx and its .bin, mapped, or memory.

`bins` is the .bin, or the shards whose concatenation it is. `check` says how much of the index is
checked at once: "quick" reads the header, the first and the last row; "full" everything; None is
full up to 64 MiB. A row that is used is checked in any case, and `verify` checks all.

Row numbers are vectors of int64 in [0, len); anything else is RowIndexError. A file that shrinks
at any time is TruncatedFileError, a page that the disk does not give ReadError.)")
      .def(py::init(&open_pair), py::arg("index"), py::arg("bins"), py::arg("check") = py::none())
      .def(py::init(&open_store), py::arg("index"), py::arg("bins"), py::arg("check") = py::none())
      .def_static(
          "in_memory", &store_in_memory, py::arg("ids"), py::arg("bounds"),
          "Row i is ids[bounds[i]:bounds[i + 1]] of a flat buffer, which is kept, not copied.")
      .def("__len__", &TokenStore::rows)
      .def_property_readonly("dtype", [](const TokenStore& store) { return name(store.type()); })
      .def_property_readonly("documents", &TokenStore::documents)
      .def_property_readonly("bin_bytes", &TokenStore::bin_bytes, "Bytes that the rows take.")
      .def("verify", &store_verify, py::arg("threads"),
           "Check all of the index: TokenFileError for the first row or document that is wrong.")
      .def("lengths", &store_lengths, py::arg("rows"), py::arg("out"),
           "Write the number of tokens of each row into `out`.")
      .def("locate", &store_locate, py::arg("rows"), py::arg("offsets"), py::arg("lengths"),
           "Write where in the .bin each row begins, in bytes, and its number of tokens.")
      .def("gather", &store_gather, py::arg("rows"), py::arg("start"), py::arg("stop"),
           py::arg("out"), py::arg("threads"),
           R"(Copy tokens [start, stop) of each row into the rows of `out`, padded right with 0.

`out` holds int64, int32 or uint16. ArgumentError where a row does not fit its width or an id does
not fit its dtype. After an error the content of `out` is undefined.)")
      .def(
          "find_outside", &store_find_outside, py::arg("rows"), py::arg("limit"),
          py::arg("threads"),
          R"(The first id outside [0, limit): (position in `rows`, offset in the row, id), or None.)");
}

}  // namespace pythia_fast
