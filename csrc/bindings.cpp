// The one file that knows Python: buffers in, exceptions out, the GIL released around all work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/convert.h"
#include "io/errors.h"
#include "io/file.h"
#include "io/read_tensors.h"
#include "tokens/token_store.h"

namespace py = pybind11;

namespace pythia_fast {
namespace {

// ---- Errors
// --------------------------------------------------------------------------------------

py::object path_to_python(const std::string& path) {
  auto result = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<py::ssize_t>(path.size())));
  if (!result) throw py::error_already_set();
  return result;
}

py::object error_class(const char* name) {
  return py::module_::import("pythia_fast.errors").attr(name);
}

void raise(const char* name, const FormatError& error) {
  const py::object type = error_class(name);
  const py::object value = type(path_to_python(error.path), py::str(error.what()),
                                py::arg("offset") = py::cast(error.offset));
  PyErr_SetObject(type.ptr(), value.ptr());
}

void raise(const char* name, const std::string& message) {
  PyErr_SetString(error_class(name).ptr(), message.c_str());
}

void raise(const ReadError& error) {
  const py::object type = error_class("ReadError");
  const char* words = error.errno_value == EINVAL ? "Not a regular file, or not readable as one"
                                                  : std::strerror(error.errno_value);
  const py::object value = type(error.errno_value, words, path_to_python(error.path));
  PyErr_SetObject(type.ptr(), value.ptr());
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const ReadError& error) {
    raise(error);
  } catch (const TruncatedFileError& error) {
    raise("TruncatedFileError", error);
  } catch (const TokenFileError& error) {
    raise("TokenFileError", error);
  } catch (const ArgumentError& error) {
    raise("ArgumentError", error.what());
  } catch (const RowIndexError& error) {
    raise("RowIndexError", error.what());
  }
}

// ---- Arguments
// -----------------------------------------------------------------------------------

// A Python integer, or what stands for one, as an unsigned 64-bit number; ArgumentError where it is
// outside that range.
std::uint64_t count(const py::object& value, const char* name) {
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!integer) throw py::error_already_set();
  const std::uint64_t result = PyLong_AsUnsignedLongLong(integer.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ArgumentError(std::string(name) + " must lie in [0, 2^64), got " +
                        std::string(py::str(integer)));
  }
  return result;
}

std::size_t thread_count(const py::object& threads) {
  const std::uint64_t result = count(threads, "threads");
  if (result == 0) throw ArgumentError("threads must be at least 1, got 0");
  return result;
}

Level level(const std::optional<std::string>& name) {
  if (!name) return best_level();
  if (*name != "portable" && *name != "avx2") {
    throw ArgumentError("no instruction set '" + *name + "'; see instruction_sets()");
  }
  const Level named = *name == "avx2" ? Level::avx2 : Level::portable;
  if (!supported(named)) throw ArgumentError("this processor has no " + *name);
  return named;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> result{"portable"};
  if (supported(Level::avx2)) result.emplace_back("avx2");
  return result;
}

// A Python object's memory, held for as long as this lives. Made and destroyed with the GIL.
class Buffer {
 public:
  Buffer(const py::object& object, int flags, const char* name) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
    const py::error_already_set cause;
    throw ArgumentError(std::string(name) + ": " + cause.what());
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const Py_buffer& view() const { return view_; }
  std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
};

// ---- io
// ------------------------------------------------------------------------------------------

py::bytes read_bytes(const File& file, const py::object& offset_object,
                     const py::object& nbytes_object) {
  const std::uint64_t offset = count(offset_object, "offset");
  const std::uint64_t nbytes = count(nbytes_object, "nbytes");
  file.require(offset, nbytes);  // before memory is asked for
  auto result = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(nbytes)));
  if (!result) throw py::error_already_set();
  auto* begin = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(result.ptr()));
  const py::gil_scoped_release unlocked;
  file.read(offset, {begin, nbytes});
  return result;
}

Read make_read(std::shared_ptr<const File> file, const py::object& offset, const std::string& dtype,
               const py::object& rows, const py::object& columns,
               const py::object& destination_offset, const std::string& destination_dtype,
               const py::object& destination_row_bytes) {
  return {std::move(file),
          count(offset, "offset"),
          float_type(dtype),
          count(rows, "rows"),
          count(columns, "columns"),
          count(destination_offset, "destination_offset"),
          float_type(destination_dtype),
          count(destination_row_bytes, "destination_row_bytes")};
}

std::vector<std::uint64_t> read_into(const std::vector<Read>& reads, const py::object& destination,
                                     const py::object& threads,
                                     const std::optional<std::string>& instructions) {
  const std::size_t workers = thread_count(threads);
  const Level chosen = level(instructions);
  const Buffer buffer(destination, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS, "destination");
  const py::gil_scoped_release unlocked;
  return read_tensors(reads, buffer.bytes(), workers, chosen);
}

void bind_io(py::module_& m) {
  py::class_<File, std::shared_ptr<File>>(m, "File", R"(A regular file, open for reading.

ReadError where the system refuses. `size` is the size when it was opened. Threads may share it.)")
      .def(py::init([](const std::filesystem::path& path) {
             const py::gil_scoped_release unlocked;
             return std::make_shared<File>(path.native());
           }),
           py::arg("path"))
      .def_property_readonly("path", [](const File& file) { return path_to_python(file.path()); })
      .def_property_readonly("size", &File::size)
      .def("fileno", &File::descriptor, "The file descriptor; it stays this object's own.")
      .def("read", &read_bytes, py::arg("offset"), py::arg("nbytes"),
           "Exactly `nbytes` bytes from `offset`, or TruncatedFileError.")
      .def("__repr__", [](const File& file) {
        return py::str("File({!r}, {} bytes)").format(path_to_python(file.path()), file.size());
      });

  py::class_<Read>(m, "Read", R"(One tensor's way from a file into memory.

The source is a dense [rows, columns] block of `dtype` ("F16", "BF16", "F32" or "F64") at byte
`offset`; the destination's rows begin `destination_row_bytes` apart.)")
      .def(py::init(&make_read), py::arg("file"), py::arg("offset"), py::arg("dtype"),
           py::arg("rows"), py::arg("columns"), py::arg("destination_offset"),
           py::arg("destination_dtype"), py::arg("destination_row_bytes"));

  m.def("read_tensors", &read_into, py::arg("reads"), py::arg("destination"), py::arg("threads"),
        py::kw_only(), py::arg("instructions") = py::none(),
        R"(Fill `destination`, a writable C-contiguous buffer, and count what is not finite.

Every range is checked before the first byte moves. Values are rounded to nearest, ties to even.
Returns for each read how many of the values written are NaN or infinite. The destinations of two
reads must not overlap; after an error the destination's content is undefined. `instructions`
names one of `instruction_sets()`; by default the best one is taken, and all give the same bits.)");
  m.def("instruction_sets", &instruction_sets,
        "What `read_tensors` can run on this processor, slowest first.");
}

// ---- tokens
// --------------------------------------------------------------------------------------

IdType id_type(const Py_buffer& view, const char* name) {
  std::string format = view.format == nullptr ? "B" : view.format;
  if (format.size() == 2 && std::strchr("@=<", format[0]) != nullptr) format.erase(0, 1);
  if (format.size() == 1) {
    if (std::strchr("bhilq", format[0]) != nullptr) {
      if (view.itemsize == 1) return IdType::i8;
      if (view.itemsize == 2) return IdType::i16;
      if (view.itemsize == 4) return IdType::i32;
      if (view.itemsize == 8) return IdType::i64;
    }
    if (std::strchr("BHILQ", format[0]) != nullptr) {
      if (view.itemsize == 1) return IdType::u8;
      if (view.itemsize == 2) return IdType::u16;
      if (view.itemsize == 4) return IdType::u32;
      if (view.itemsize == 8) return IdType::u64;
    }
  }
  throw ArgumentError(std::string(name) +
                      " must hold integers of this machine's byte order, not '" + format + "'");
}

constexpr int row_flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;

// A one-dimensional contiguous int64 buffer.
std::span<std::int64_t> int64_vector(const Buffer& buffer, const char* name) {
  if (buffer.view().ndim != 1 || id_type(buffer.view(), name) != IdType::i64) {
    throw ArgumentError(std::string(name) + " must be a vector of int64");
  }
  return {static_cast<std::int64_t*>(buffer.view().buf),
          static_cast<std::size_t>(buffer.view().shape[0])};
}

std::shared_ptr<TokenStore> open_store(const std::filesystem::path& index,
                                       const std::filesystem::path& bin) {
  const py::gil_scoped_release unlocked;
  return std::make_shared<TokenStore>(index.native(), bin.native());
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
  const py::gil_scoped_release unlocked;
  store.lengths(from, to);
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
  const py::gil_scoped_release unlocked;
  store.gather(selected, columns, matrix, workers);
}

py::object store_find_outside(const TokenStore& store, const py::object& rows,
                              const py::object& limit_object, const py::object& threads) {
  const std::uint64_t limit = count(limit_object, "limit");
  const std::size_t workers = thread_count(threads);
  const Buffer rows_buffer(rows, row_flags, "rows");
  const auto selected = int64_vector(rows_buffer, "rows");
  std::optional<Outside> found;
  {
    const py::gil_scoped_release unlocked;
    found = store.find_outside(selected, limit, workers);
  }
  if (!found) return py::none();
  return py::make_tuple(found->position, found->offset, found->id);
}

void bind_tokens(py::module_& m) {
  py::class_<TokenStore, std::shared_ptr<TokenStore>>(
      m, "TokenStore", R"(Rows of token ids, read-only: an .idx/.bin pair, mapped, or memory.

Row numbers are vectors of int64 in [0, len); anything else is RowIndexError.)")
      .def(py::init(&open_store), py::arg("index"), py::arg("bin"))
      .def_static(
          "in_memory", &store_in_memory, py::arg("ids"), py::arg("bounds"),
          "Row i is ids[bounds[i]:bounds[i + 1]] of a flat buffer, which is kept, not copied.")
      .def("__len__", &TokenStore::rows)
      .def_property_readonly("dtype", [](const TokenStore& store) { return name(store.type()); })
      .def_property_readonly("documents", &TokenStore::documents)
      .def("lengths", &store_lengths, py::arg("rows"), py::arg("out"),
           "Write the number of tokens of each row into `out`.")
      .def("gather", &store_gather, py::arg("rows"), py::arg("start"), py::arg("stop"),
           py::arg("out"), py::arg("threads"),
           R"(Copy tokens [start, stop) of each row into the rows of `out`, padded right with 0.

`out` holds int64, int32 or uint16. ArgumentError where a row does not fit its width or an id does
not fit its dtype; TruncatedFileError if a file has shrunk since it was opened.)")
      .def(
          "find_outside", &store_find_outside, py::arg("rows"), py::arg("limit"),
          py::arg("threads"),
          R"(The first id outside [0, limit): (position in `rows`, offset in the row, id), or None.)");
}

}  // namespace
}  // namespace pythia_fast

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of pythia_fast; import it through pythia_fast.core.";
  py::register_local_exception_translator(&pythia_fast::translate);
  pythia_fast::bind_io(m);
  pythia_fast::bind_tokens(m);
}
