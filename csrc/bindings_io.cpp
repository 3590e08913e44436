// Files, and weights out of them.
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "bindings.h"
#include "io/convert.h"
#include "io/file.h"
#include "io/read_tensors.h"

namespace pythia_fast {
namespace {

py::bytes read_bytes(const File& file, const py::object& offset_object,
                     const py::object& nbytes_object) {
  const std::uint64_t offset = count(offset_object, "offset");
  const std::uint64_t nbytes = count(nbytes_object, "nbytes");
  file.require(offset, nbytes);  // before memory is asked for
  auto result = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(nbytes)));
  if (!result) throw py::error_already_set();
  auto* begin = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(result.ptr()));
  const Unlocked unlocked;
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
  const Isa chosen = isa(instructions);
  const Buffer buffer(destination, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS, "destination");
  const Unlocked unlocked;
  return read_tensors(reads, buffer.bytes(), workers, chosen);
}

}  // namespace

void bind_io(py::module_& m) {
  py::class_<File, std::shared_ptr<File>>(m, "File", R"(A regular file, open for reading.

ReadError where the system refuses. `size` is the size when it was opened. Threads may share it.)")
      .def(py::init([](const std::filesystem::path& path) {
             const Unlocked unlocked;
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
  m.def("instruction_sets", &isa_names, "What this processor can run, slowest first.");
}

}  // namespace pythia_fast
