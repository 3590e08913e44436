// What can go wrong below Python. bindings.cpp turns each into the class of the same name in
// pythia_fast/errors.py.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace pythia_fast {

// The operating system refused: path and errno.
struct ReadError : std::runtime_error {
  ReadError(std::string where, int code)
      : std::runtime_error(where), path(std::move(where)), errno_value(code) {}
  std::string path;
  int errno_value;
};

// A file does not keep to its format: path, byte offset (or none) and the reason.
struct FormatError : std::runtime_error {
  FormatError(std::string where, const std::string& reason, std::optional<std::uint64_t> at)
      : std::runtime_error(reason), path(std::move(where)), offset(at) {}
  std::string path;
  std::optional<std::uint64_t> offset;
};

struct TruncatedFileError : FormatError {
  using FormatError::FormatError;
};

struct TokenFileError : FormatError {
  using FormatError::FormatError;
};

// A training order that contradicts itself or the data.
struct OrderError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ArgumentError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A row index outside the store; an IndexError in Python.
struct RowIndexError : std::out_of_range {
  using std::out_of_range::out_of_range;
};

}  // namespace pythia_fast
