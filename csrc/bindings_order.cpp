// The training order.
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings_rows.h"
#include "io/errors.h"
#include "tokens/mt19937.h"
#include "tokens/order.h"
#include "tokens/ordered_store.h"
#include "tokens/shuffle.h"

namespace pythia_fast {
namespace {

// A contiguous array of T and how many values it holds; ArgumentError for another type.
template <typename T>
std::span<T> values(const Buffer& buffer, IdType type, const char* what) {
  const Py_buffer& view = buffer.view();
  if (id_type(view, what) != type || reinterpret_cast<std::uintptr_t>(view.buf) % sizeof(T) != 0) {
    throw ArgumentError(std::string(what) + " must be an aligned array of " + name(type));
  }
  return {static_cast<T*>(view.buf), static_cast<std::size_t>(view.len) / sizeof(T)};
}

Lengths lengths_of(const Buffer& buffer) {
  const IdType type = id_type(buffer.view(), "lengths");
  if (type != IdType::i32 && type != IdType::i64) {
    throw ArgumentError(std::string("lengths must be int32 or int64, not ") + name(type));
  }
  const std::size_t item = item_size(type);
  return {buffer.bytes().data(), buffer.bytes().size() / item, item};
}

SampleIdx sample_idx_of(const Buffer& buffer) {
  if (id_type(buffer.view(), "sample_idx") == IdType::i32) {
    return NarrowRows(values<const std::int32_t>(buffer, IdType::i32, "sample_idx"));
  }
  return WideRows(values<const std::int64_t>(buffer, IdType::i64, "sample_idx"));
}

Mt19937 seeded(const py::object& seed) {
  const std::uint64_t number = count(seed, "seed");
  if (number > 0xffffffffU) {
    throw ArgumentError("seed must lie in [0, 2^32), got " + std::to_string(number));
  }
  return Mt19937(static_cast<std::uint32_t>(number));
}

void shuffle_array(Mt19937& random, const py::object& x, const py::object& begin_object,
                   const py::object& end_object, const py::object& threads) {
  const Buffer buffer(x, row_flags | PyBUF_WRITABLE, "x");
  const std::uint64_t begin = count(begin_object, "begin");
  const std::uint64_t end = count(end_object, "end");
  const std::size_t workers = thread_count(threads);
  const IdType type = id_type(buffer.view(), "x");
  // What is exchanged is bits: signed or not makes no difference.
  if (item_size(type) == 4) {
    const auto x4 = values<std::uint32_t>(buffer, type, "x");
    const Unlocked unlocked;
    shuffle(random, x4, begin, end, workers);
  } else if (item_size(type) == 8) {
    const auto x8 = values<std::uint64_t>(buffer, type, "x");
    const Unlocked unlocked;
    shuffle(random, x8, begin, end, workers);
  } else {
    throw ArgumentError("x must hold integers of 32 or 64 bits");
  }
}

void draw(Mt19937& random, const py::object& first_object, const py::object& out) {
  const std::uint64_t first = count(first_object, "first");
  const Buffer buffer(out, row_flags | PyBUF_WRITABLE, "out");
  const auto numbers = values<std::uint64_t>(buffer, IdType::u64, "out");
  const Unlocked unlocked;
  draw_below(random, first, numbers);
}

std::uint64_t sum_lengths(const py::object& lengths, const py::object& threads) {
  const Buffer buffer(lengths, row_flags, "lengths");
  const Lengths given = lengths_of(buffer);
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  return total_tokens(given, workers);
}

// Cutter with the memory that they look at.
class HeldCutter {
 public:
  HeldCutter(const py::object& lengths, const py::object& doc_idx, const py::object& length)
      : lengths_(lengths, row_flags, "lengths"),
        doc_idx_(doc_idx, row_flags, "doc_idx"),
        cutter_(lengths_of(lengths_), values<const std::int32_t>(doc_idx_, IdType::i32, "doc_idx"),
                count(length, "sequence_length")) {}

  const Cutter& cutter() const { return cutter_; }

  void write(const py::object& rows, const py::object& documents_object,
             const py::object& threads) {
    const std::uint64_t documents = count(documents_object, "documents");
    const std::size_t workers = thread_count(threads);
    const Buffer buffer(rows, row_flags | PyBUF_WRITABLE, "sample_idx");
    const auto to = values<std::int64_t>(buffer, IdType::i64, "sample_idx");
    const Unlocked unlocked;
    cutter_.write(to, documents, workers);
  }

  void compare(const py::object& rows, const py::object& documents_object,
               const py::object& threads) {
    const std::uint64_t documents = count(documents_object, "documents");
    const std::size_t workers = thread_count(threads);
    const Buffer buffer(rows, row_flags, "sample_idx");
    const SampleIdx given = sample_idx_of(buffer);
    const Unlocked unlocked;
    cutter_.compare(given, documents, workers);
  }

 private:
  Buffer lengths_;
  Buffer doc_idx_;
  Cutter cutter_;
};

void check_sample_idx(const py::object& rows, const py::object& positions_object,
                      const py::object& length_object, const py::object& threads) {
  const std::uint64_t positions = count(positions_object, "positions");
  const std::uint64_t length = count(length_object, "sequence_length");
  const std::size_t workers = thread_count(threads);
  const Buffer buffer(rows, row_flags, "sample_idx");
  const SampleIdx given = sample_idx_of(buffer);
  const Unlocked unlocked;
  check_rows(given, positions, length, workers);
}

void check_shuffle_idx(const py::object& shuffle_idx, const py::object& threads) {
  const std::size_t workers = thread_count(threads);
  const Buffer buffer(shuffle_idx, row_flags, "shuffle_idx");
  if (id_type(buffer.view(), "shuffle_idx") == IdType::u32) {
    const auto given = values<const std::uint32_t>(buffer, IdType::u32, "shuffle_idx");
    const Unlocked unlocked;
    check_permutation(given, workers);
  } else {
    const auto given = values<const std::int64_t>(buffer, IdType::i64, "shuffle_idx");
    const Unlocked unlocked;
    check_permutation(given, workers);
  }
}

void check_doc_idx(const py::object& doc_idx, const py::object& documents_object,
                   const py::object& threads) {
  const std::uint64_t documents = count(documents_object, "documents");
  const std::size_t workers = thread_count(threads);
  const Buffer buffer(doc_idx, row_flags, "doc_idx");
  const auto given = values<const std::int32_t>(buffer, IdType::i32, "doc_idx");
  const Unlocked unlocked;
  check_documents(given, documents, workers);
}

// The three arrays of an order, held.
class HeldOrder {
 public:
  HeldOrder(const py::object& doc_idx, const py::object& sample_idx, const py::object& shuffle_idx)
      : doc_idx_(doc_idx, row_flags, "doc_idx"),
        sample_idx_(sample_idx, row_flags, "sample_idx"),
        shuffle_idx_(shuffle_idx, row_flags, "shuffle_idx") {}

  OrderArrays arrays() const {
    OrderArrays result{values<const std::int32_t>(doc_idx_, IdType::i32, "doc_idx"),
                       sample_idx_of(sample_idx_),
                       {}};
    if (id_type(shuffle_idx_.view(), "shuffle_idx") == IdType::u32) {
      result.shuffle_idx = values<const std::uint32_t>(shuffle_idx_, IdType::u32, "shuffle_idx");
    } else {
      result.shuffle_idx = values<const std::int64_t>(shuffle_idx_, IdType::i64, "shuffle_idx");
    }
    return result;
  }

 private:
  Buffer doc_idx_;
  Buffer sample_idx_;
  Buffer shuffle_idx_;
};

std::shared_ptr<OrderedStore> open_in_order(std::shared_ptr<TokenStore> documents,
                                            const py::object& doc_idx, const py::object& sample_idx,
                                            const py::object& shuffle_idx, const py::object& length,
                                            const std::vector<std::filesystem::path>& files) {
  auto held = std::make_shared<HeldOrder>(doc_idx, sample_idx, shuffle_idx);
  const OrderArrays arrays = held->arrays();
  std::vector<std::string> names;
  for (const std::filesystem::path& file : files) names.push_back(file.native());
  return std::make_shared<OrderedStore>(std::move(documents), arrays,
                                        count(length, "sequence_length"), names, std::move(held));
}

std::int32_t find_highest_document(const py::object& doc_idx) {
  const Buffer buffer(doc_idx, row_flags, "doc_idx");
  const auto given = values<const std::int32_t>(buffer, IdType::i32, "doc_idx");
  const Unlocked unlocked;
  return highest_document(given);
}

}  // namespace

void bind_order(py::module_& m) {
  py::class_<Mt19937>(m, "LegacyRandom",
                      "The numbers of numpy.random.RandomState(seed), for shuffles.")
      .def(py::init(&seeded), py::arg("seed"))
      .def("shuffle", &shuffle_array, py::arg("x"), py::arg("begin"), py::arg("end"),
           py::arg("threads"),
           R"(The part of RandomState.shuffle(x) that exchanges x[end - 1] down to x[begin].

x holds integers of 32 or 64 bits. All parts from len(x) down to 0, in turn, are the shuffle.)")
      .def("draw", &draw, py::arg("first"), py::arg("out"),
           "out[k] (uint64) = a number in [0, first - k], as the shuffle draws it.");
  m.def("sum_lengths", &sum_lengths, py::arg("lengths"), py::arg("threads"),
        "The sum of int32 or int64 lengths; OrderError for a negative one, or for 2^63 and more.");
  py::class_<HeldCutter>(m, "Cutter", R"(Cuts documents into samples that overlap by one token.

`lengths` (int32 or int64) are the documents' tokens, `doc_idx` (int32) is their order.)")
      .def(py::init<const py::object&, const py::object&, const py::object&>(), py::arg("lengths"),
           py::arg("doc_idx"), py::arg("sequence_length"))
      .def_property_readonly("position",
                             [](const HeldCutter& held) { return held.cutter().position(); })
      .def_property_readonly("tokens",
                             [](const HeldCutter& held) { return held.cutter().tokens(); })
      .def("write", &HeldCutter::write, py::arg("sample_idx"), py::arg("documents"),
           py::arg("threads"),
           "Write the rows (int64) that begin in the next `documents` of doc_idx.")
      .def("compare", &HeldCutter::compare, py::arg("sample_idx"), py::arg("documents"),
           py::arg("threads"),
           "OrderError for the first of those rows (int32 or int64) that is another.");
  m.def("check_sample_idx", &check_sample_idx, py::arg("sample_idx"), py::arg("positions"),
        py::arg("sequence_length"), py::arg("threads"),
        "OrderError for the first row that cannot be right, whatever the documents' lengths.");
  m.def("check_shuffle_idx", &check_shuffle_idx, py::arg("shuffle_idx"), py::arg("threads"),
        "OrderError unless it is a permutation.");
  m.def("highest_document", &find_highest_document, py::arg("doc_idx"),
        "The highest number in doc_idx, or -1.");
  m.def("check_doc_idx", &check_doc_idx, py::arg("doc_idx"), py::arg("documents"),
        py::arg("threads"), "OrderError unless it holds each document equally often.");
  py::class_<OrderedStore, std::shared_ptr<OrderedStore>> store(
      m, "OrderedStore", R"(A TokenStore's rows as the samples that training sees, one a row.

The arrays are held, not copied; `files` are those that they are mapped from. OrderError where
what is used of them cannot be.)");
  store
      .def(py::init(&open_in_order), py::arg("documents"), py::arg("doc_idx"),
           py::arg("sample_idx"), py::arg("shuffle_idx"), py::arg("sequence_length"),
           py::arg("files"))
      .def_property_readonly("documents", [](const OrderedStore&) { return py::none(); })
      .def_property_readonly("bin_bytes", &OrderedStore::row_bytes,
                             "Bytes that the rows would take if they were written.");
  bind_rows(store);
}

}  // namespace pythia_fast
