// The module, its errors, and how arguments are taken.
#include "bindings.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "io/errors.h"

namespace pythia_fast {
namespace {

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
  } catch (const OrderError& error) {
    raise("OrderError", error.what());
  } catch (const ArgumentError& error) {
    raise("ArgumentError", error.what());
  } catch (const RowIndexError& error) {
    raise("RowIndexError", error.what());
  }
}

}  // namespace

py::object path_to_python(const std::string& path) {
  auto result = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<py::ssize_t>(path.size())));
  if (!result) throw py::error_already_set();
  return result;
}

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
  return std::min(result, std::uint64_t{1} << 16);
}

Isa isa(const std::optional<std::string>& name) { return name ? isa_named(*name) : best_isa(); }

Unlocked::~Unlocked() {
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {  // pthread_exit, no exception: to leave this block would abort the process
    for (;;) ::pause();
  }
}

Buffer::Buffer(const py::object& object, int flags, const char* name) {
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
  const py::error_already_set cause;
  throw ArgumentError(std::string(name) + ": " + cause.what());
}

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

}  // namespace pythia_fast

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of pythia_fast; import it through pythia_fast.core.";
  pybind11::register_local_exception_translator(&pythia_fast::translate);
  pythia_fast::bind_cpu(m);
  pythia_fast::bind_io(m);
  pythia_fast::bind_tokens(m);
  pythia_fast::bind_order(m);
  pythia_fast::bind_terms(m);
}
