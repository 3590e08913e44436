// What the CPU kernels are handed: every buffer's type, size and alignment is checked before a
// kernel sees it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bindings.h"
#include "cpu/engine.h"
#include "cpu/packed_weight.h"
#include "io/errors.h"

namespace pythia_fast {

inline constexpr std::int64_t lanes = 16;
inline constexpr std::int64_t max_features = 256;

using cpu::padded;

inline std::int64_t size_argument(const py::object& value, const char* name) {
  const std::uint64_t result = count(value, name);
  if (result > std::uint64_t{1} << 28) {  // products of two, in bytes, fit 64 bits
    throw ArgumentError(std::string(name) + " is " + std::to_string(result) + ", far too many");
  }
  return static_cast<std::int64_t>(result);
}

[[noreturn]] inline void refuse(const char* name, const std::string& what) {
  throw ArgumentError(std::string(name) + " must be " + what);
}

inline std::string format_of(const Py_buffer& view) {
  std::string format = view.format == nullptr ? "B" : view.format;
  if (format.size() == 2 && std::strchr("@=<", format[0]) != nullptr) format.erase(0, 1);
  return format;
}

// The buffers of one call, and its ids.
class Arguments {
 public:
  // `values` numbers of the type with this struct format, contiguous.
  template <typename T>
  T* array(const py::object& object, const char* name, const char* format, std::int64_t values,
           bool writable) {
    const Buffer& buffer = hold(object, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT, name, writable);
    const Py_buffer& view = buffer.view();
    const std::string found = format_of(view);
    const bool right = sizeof(T) == 8 ? found == "q" || found == "l" : found == format;
    if (!right || view.len != values * static_cast<std::int64_t>(sizeof(T))) {
      refuse(name, std::to_string(values) + " values of format '" + format + "', not " +
                       std::to_string(view.len) + " bytes of '" + found + "'");
    }
    aligned(view, name, sizeof(T));
    return static_cast<T*>(view.buf);
  }

  float* floats(const py::object& object, const char* name, std::int64_t values,
                bool writable = false) {
    return array<float>(object, name, "f", values, writable);
  }

  // Ids or targets, one per token of all panels, each in [lowest, limit): a copy, since others may
  // write the array while the GIL is released.
  const std::int32_t* ids(const py::object& object, const char* name, std::int64_t panels,
                          std::int64_t limit, std::int64_t lowest = 0) {
    const auto* from = array<std::int32_t>(object, name, "i", panels * lanes, false);
    const std::vector<std::int32_t>& copy = ids_.emplace_back(from, from + panels * lanes);
    for (const std::int32_t id : copy) {
      if (id < lowest || id >= limit) {
        throw ArgumentError(std::string(name) + " lie in " + std::to_string(lowest) + " to " +
                            std::to_string(limit - 1) + ", got " + std::to_string(id));
      }
    }
    return copy.data();
  }

  // A row-major matrix: float32, float16, or bfloat16 as uint16.
  cpu::Weight weight(const py::object& object, const char* name) {
    const Py_buffer& view = hold(object, PyBUF_STRIDES | PyBUF_FORMAT, name, false).view();
    const std::string format = format_of(view);
    if (view.ndim != 2 || (format != "f" && format != "e" && format != "H")) {
      refuse(name, "a matrix of float32, float16 or, as uint16, bfloat16");
    }
    const std::int64_t item = view.itemsize;
    if (view.shape[1] < 1 || view.shape[0] < 1 || view.strides[1] != item ||
        view.strides[0] % item != 0 || view.strides[0] < view.shape[1] * item) {
      refuse(name, "a matrix with values, whose rows are contiguous and do not overlap");
    }
    aligned(view, name, static_cast<std::size_t>(item));
    const cpu::StoredType type = format == "f"   ? cpu::StoredType::f32
                                 : format == "e" ? cpu::StoredType::f16
                                                 : cpu::StoredType::bf16;
    return {view.buf, type, view.shape[0], view.shape[1], view.strides[0] / item};
  }

  // What a product multiplies by: a matrix, or one packed by the same kernels in its rows' order.
  cpu::Weight factor(const py::object& object, const char* name, const cpu::Engine& engine,
                     const cpu::RowOrder& order = {}) {
    if (!py::isinstance<cpu::PackedWeight>(object)) return weight(object, name);
    const auto& packed = object.cast<const cpu::PackedWeight&>();
    if (&packed.kernels() != &engine.kernels() || !(packed.order() == order)) {
      refuse(name, "a matrix, or one packed by these kernels in the order of this product's rows");
    }
    return packed.weight();
  }

  // Activations of `rows` features in an even number of panels.
  cpu::OperandView operand(const py::object& object, const char* name, const cpu::Engine& engine,
                           std::int64_t rows, bool writable = false) {
    const std::int64_t panel = padded(rows) * lanes * bytes_of(engine);
    const Py_buffer& view = hold(object, PyBUF_C_CONTIGUOUS, name, writable).view();
    if (rows < 1 || view.len % (2 * panel) != 0 || view.len == 0) {
      refuse(name, "an even number of panels of " + std::to_string(panel) + " bytes, not " +
                       std::to_string(view.len) + " bytes");
    }
    aligned(view, name);
    return {view.buf, view.len / panel, rows};
  }

  void* memory(const py::object& object, const char* name, std::int64_t bytes, bool writable) {
    const Py_buffer& view = hold(object, PyBUF_C_CONTIGUOUS, name, writable).view();
    if (view.len != bytes) {
      refuse(name, std::to_string(bytes) + " bytes, not " + std::to_string(view.len));
    }
    aligned(view, name);
    return view.buf;
  }

  std::int64_t bytes(const py::object& object, const char* name) {
    return hold(object, PyBUF_C_CONTIGUOUS, name, false).view().len;
  }

  static std::int64_t bytes_of(const cpu::Engine& engine) {
    return static_cast<std::int64_t>(engine.element_bytes() * engine.planes());
  }

 private:
  const Buffer& hold(const py::object& object, int flags, const char* name, bool writable) {
    held_.push_back(
        std::make_unique<Buffer>(object, writable ? flags | PyBUF_WRITABLE : flags, name));
    return *held_.back();
  }

  static void aligned(const Py_buffer& view, const char* name, std::size_t bytes = 64) {
    if (reinterpret_cast<std::uintptr_t>(view.buf) % bytes != 0) {
      refuse(name, "aligned to " + std::to_string(bytes) + " bytes");
    }
  }

  std::vector<std::unique_ptr<Buffer>> held_;
  std::vector<std::vector<std::int32_t>> ids_;
};

inline void same(std::int64_t found, std::int64_t wanted, const char* what) {
  if (found != wanted) {
    throw ArgumentError(std::string(what) + " are " + std::to_string(found) + ", not " +
                        std::to_string(wanted));
  }
}

// Up to where each of a tree's tokens is seen: beyond itself, the first one by all of its sequence.
inline const std::int32_t* ends_of(Arguments& arguments, const py::object& object,
                                   const cpu::Heads& heads) {
  const std::int64_t tokens = heads.panels * lanes;
  const std::int32_t* ends =
      arguments.ids(object, "ends", heads.sequences * heads.panels, tokens + 1, 1);
  for (std::int64_t i = 0; i < heads.sequences * tokens; ++i) {
    const std::int64_t token = i % tokens;
    if (ends[i] <= token || (token == 0 && ends[i] != tokens)) {
      throw ArgumentError("ends are beyond their own token, and the first token's is " +
                          std::to_string(tokens) + ": token " + std::to_string(token) + " has " +
                          std::to_string(ends[i]));
    }
  }
  return ends;
}

// Keys and values may have room for more than there is: they say how much by their size.
inline void take_cache(Arguments& arguments, const cpu::Engine& engine, cpu::Heads& heads,
                       const py::object& keys, const py::object& values, bool writable) {
  if (heads.features % 2 != 0 || heads.features > max_features) {
    throw ArgumentError("a head has an even number of features, at most 256, not " +
                        std::to_string(heads.features));
  }
  const std::int64_t pair = heads.sequences * heads.heads * 2 * lanes * padded(heads.features) *
                            Arguments::bytes_of(engine);
  const std::int64_t pairs = arguments.bytes(keys, "keys") / pair;
  heads.capacity = 2 * pairs;
  heads.keys = arguments.memory(keys, "keys", pairs * pair, writable);
  heads.values = arguments.memory(values, "values", pairs * pair, writable);
  if (heads.capacity < heads.panels) {
    throw ArgumentError("keys have room for " + std::to_string(heads.capacity) +
                        " panels of a sequence, not for " + std::to_string(heads.panels));
  }
}

// The three buffers of attention and their shape.
inline cpu::Heads heads_of(Arguments& arguments, const cpu::Engine& engine,
                           const py::object& queries, const py::object& keys,
                           const py::object& values, const std::vector<std::int64_t>& shape,
                           bool writable) {
  if (shape.size() != 4 || *std::min_element(shape.begin(), shape.end()) < 1 ||
      *std::max_element(shape.begin(), shape.end()) > std::int64_t{1} << 20 ||
      shape[0] * shape[1] * shape[3] > std::int64_t{1} << 40) {
    throw ArgumentError(
        "the shape is (sequences, heads, features, panels), all positive and no "
        "more than memory holds");
  }
  cpu::Heads heads{};
  heads.sequences = shape[0];
  heads.heads = shape[1];
  heads.features = shape[2];
  heads.panels = shape[3];
  take_cache(arguments, engine, heads, keys, values, writable);
  const std::int64_t bytes = heads.sequences * heads.heads * ((heads.panels + 1) / 2 * 2) * lanes *
                             padded(heads.features) * Arguments::bytes_of(engine);
  heads.queries = arguments.memory(queries, "queries", bytes, writable);
  return heads;
}

}  // namespace pythia_fast
