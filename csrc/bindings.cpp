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
#include <vector>

#include "io/convert.h"
#include "io/errors.h"
#include "io/file.h"
#include "io/read_tensors.h"

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

// A Python integer as an unsigned 64-bit number; ArgumentError where it is none.
std::uint64_t count(const py::int_& value, const char* name) {
  const std::uint64_t result = PyLong_AsUnsignedLongLong(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ArgumentError(std::string(name) + " must lie in [0, 2^64), got " +
                        std::string(py::str(value)));
  }
  return result;
}

std::size_t thread_count(const py::int_& threads) {
  const std::uint64_t result = count(threads, "threads");
  if (result == 0) throw ArgumentError("threads must be at least 1, got 0");
  return result;
}

Level level(const std::optional<std::string>& name) {
  if (!name) return best_level();
  const auto named =
      *name == "portable" ? Level::portable
      : *name == "avx2"   ? Level::avx2
      : *name == "avx512"
          ? Level::avx512
          : throw ArgumentError("no instruction set '" + *name + "'; see instruction_sets()");
  if (!supported(named)) throw ArgumentError("this processor has no " + *name);
  return named;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> result{"portable"};
  if (supported(Level::avx2)) result.emplace_back("avx2");
  if (supported(Level::avx512)) result.emplace_back("avx512");
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

py::bytes read_bytes(const File& file, const py::int_& offset_object,
                     const py::int_& nbytes_object) {
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

Read make_read(std::shared_ptr<const File> file, const py::int_& offset, const std::string& dtype,
               const py::int_& rows, const py::int_& columns, const py::int_& destination_offset,
               const std::string& destination_dtype, const py::int_& destination_row_bytes) {
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
                                     const py::int_& threads,
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

}  // namespace
}  // namespace pythia_fast

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of pythia_fast; import it through pythia_fast.core.";
  py::register_local_exception_translator(&pythia_fast::translate);
  pythia_fast::bind_io(m);
}
