// Rows of token ids.
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "bindings_rows.h"
#include "io/errors.h"
#include "tokens/token_store.h"

namespace pythia_fast {
namespace {

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

}  // namespace

void bind_tokens(py::module_& m) {
  py::class_<TokenStore, std::shared_ptr<TokenStore>> store(
      m, "TokenStore", R"(Rows of token ids, read-only: an .idx and its .bin, mapped, or memory.

`bins` is the .bin, or the shards whose concatenation it is. `check` says how much of the index is
checked at once: "quick" reads the header, the first and the last row; "full" everything; None is
full up to 64 MiB. A row that is used is checked in any case, and `verify` checks all.

Row numbers are vectors of int64 in [0, len); anything else is RowIndexError. A file that shrinks
at any time is TruncatedFileError, a page that the disk does not give ReadError.)");
  store.def(py::init(&open_pair), py::arg("index"), py::arg("bins"), py::arg("check") = py::none())
      .def(py::init(&open_store), py::arg("index"), py::arg("bins"), py::arg("check") = py::none())
      .def_static(
          "in_memory", &store_in_memory, py::arg("ids"), py::arg("bounds"),
          "Row i is ids[bounds[i]:bounds[i + 1]] of a flat buffer, which is kept, not copied.")
      .def_property_readonly("documents", &TokenStore::documents)
      .def_property_readonly("bin_bytes", &TokenStore::bin_bytes, "Bytes that the rows take.")
      .def("locate", &store_locate, py::arg("rows"), py::arg("offsets"), py::arg("lengths"),
           "Write where in the .bin each row begins, in bytes, and its number of tokens.");
  bind_rows(store);
}

}  // namespace pythia_fast
