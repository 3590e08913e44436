// What the bindings share. Only files named bindings* know Python: buffers in, exceptions out, the
// GIL released around all work.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "isa.h"
#include "tokens/id_type.h"

namespace pythia_fast {

namespace py = pybind11;

// One a file: bindings_cpu.cpp, bindings_io.cpp, bindings_order.cpp, bindings_terms.cpp,
// bindings_tokens.cpp.
void bind_cpu(py::module_& m);
void bind_io(py::module_& m);
void bind_order(py::module_& m);  // after bind_tokens
void bind_terms(py::module_& m);
void bind_tokens(py::module_& m);

py::object path_to_python(const std::string& path);

// A Python integer, or what stands for one, as an unsigned 64-bit number; ArgumentError where it is
// outside that range.
std::uint64_t count(const py::object& value, const char* name);

// No more than any machine has, whatever is asked for; ArgumentError for 0.
std::size_t thread_count(const py::object& threads);

// The named instruction set, or the best one; ArgumentError for one unknown or not supported here.
Isa isa(const std::optional<std::string>& name);

// The GIL released for as long as this lives. After the interpreter has begun to end, other threads
// get it no more: up to Python 3.13 whoever asks is ended there and then by pthread_exit, whose
// unwinding aborts the process at the first function that is noexcept, as pybind11's own guard is.
// Such a thread waits here for the process to end, as in Python 3.14.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// A Python object's memory, held for as long as this lives; ArgumentError where the object has none
// as `flags` (PyBUF_…) ask for it. Made and destroyed with the GIL.
class Buffer {
 public:
  Buffer(const py::object& object, int flags, const char* name);
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

// The integer type of a buffer that was made with PyBUF_FORMAT; ArgumentError for any other.
IdType id_type(const Py_buffer& view, const char* name);

}  // namespace pythia_fast
