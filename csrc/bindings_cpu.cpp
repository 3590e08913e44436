// The CPU kernels. Every buffer's type, size and alignment is checked before a kernel sees it.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings.h"
#include "cpu/engine.h"
#include "io/errors.h"

namespace pythia_fast {
namespace {

using cpu::Engine;
using cpu::OperandView;

constexpr std::int64_t lanes = 16;
constexpr std::int64_t max_features = 256;

std::int64_t padded(std::int64_t k) { return (k + 31) / 32 * 32; }

std::int64_t size_argument(const py::object& value, const char* name) {
  const std::uint64_t result = count(value, name);
  if (result > std::uint64_t{1} << 28) {  // products of two, in bytes, fit 64 bits
    throw ArgumentError(std::string(name) + " is " + std::to_string(result) + ", far too many");
  }
  return static_cast<std::int64_t>(result);
}

[[noreturn]] void refuse(const char* name, const std::string& what) {
  throw ArgumentError(std::string(name) + " must be " + what);
}

std::string format_of(const Py_buffer& view) {
  std::string format = view.format == nullptr ? "B" : view.format;
  if (format.size() == 2 && std::strchr("@=<", format[0]) != nullptr) format.erase(0, 1);
  return format;
}

// The buffers of one call.
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

  // Activations of `rows` features in an even number of panels.
  OperandView operand(const py::object& object, const char* name, const Engine& engine,
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

  static std::int64_t bytes_of(const Engine& engine) {
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
};

void same(std::int64_t found, std::int64_t wanted, const char* what) {
  if (found != wanted) {
    throw ArgumentError(std::string(what) + " are " + std::to_string(found) + ", not " +
                        std::to_string(wanted));
  }
}

// Ids or targets, one per token of all panels, each in [lowest, limit).
const std::int32_t* checked_ids(Arguments& arguments, const py::object& object, const char* name,
                                std::int64_t panels, std::int64_t limit, std::int64_t lowest = 0) {
  const auto* ids = arguments.array<std::int32_t>(object, name, "i", panels * lanes, false);
  for (std::int64_t i = 0; i < panels * lanes; ++i) {
    if (ids[i] < lowest || ids[i] >= limit) {
      throw ArgumentError(std::string(name) + " lie in " + std::to_string(lowest) + " to " +
                          std::to_string(limit - 1) + ", got " + std::to_string(ids[i]));
    }
  }
  return ids;
}

void embed(const Engine& engine, const py::object& table, const py::object& ids,
           const py::object& x, const py::object& panels_object, const py::object& threads) {
  Arguments arguments;
  const std::int64_t panels = size_argument(panels_object, "panels");
  cpu::EmbedWork work{};
  work.weight = arguments.weight(table, "table");
  work.ids = checked_ids(arguments, ids, "ids", panels, work.weight.rows);
  work.x = arguments.floats(x, "x", panels * work.weight.columns * lanes, true);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.embed(work, panels, workers);
}

void pick(const Engine& engine, const py::object& matrix, const py::object& rows,
          const py::object& out, const py::object& threads) {
  Arguments arguments;
  cpu::PickWork work{};
  work.weight = arguments.weight(matrix, "matrix");
  work.out = arguments.operand(out, "out", engine, work.weight.columns, true);
  const std::int64_t panels = work.out.panels;
  work.rows = checked_ids(arguments, rows, "rows", panels, work.weight.rows, -1);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.pick(work, panels, workers);
}

void norm(const Engine& engine, const py::object& x, double epsilon,
          const std::vector<py::object>& weights, const std::vector<py::object>& biases,
          const std::vector<py::object>& outs, const py::object& features_object,
          const py::object& threads) {
  Arguments arguments;
  const std::int64_t features = size_argument(features_object, "features");
  if (outs.empty() || outs.size() > 2 || weights.size() != outs.size() ||
      biases.size() != outs.size()) {
    throw ArgumentError("a LayerNorm has one or two outputs, each with a weight and a bias");
  }
  cpu::NormWork work{};
  work.epsilon = static_cast<float>(epsilon);
  work.outputs = static_cast<std::int64_t>(outs.size());
  for (std::size_t i = 0; i < outs.size(); ++i) {
    work.out[i] = arguments.operand(outs[i], "out", engine, features, true);
    work.affine[i] = {arguments.floats(weights[i], "weight", features),
                      arguments.floats(biases[i], "bias", features)};
    same(work.out[i].panels, work.out[0].panels, "the outputs' panels");
  }
  const std::int64_t panels = work.out[0].panels;
  work.x = arguments.floats(x, "x", panels * features * lanes);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.norm(work, panels, workers);
}

// Keys and values may have room for more than there is: they say how much by their size.
void take_cache(Arguments& arguments, const Engine& engine, cpu::Heads& heads,
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
cpu::Heads heads_of(Arguments& arguments, const Engine& engine, const py::object& queries,
                    const py::object& keys, const py::object& values,
                    const std::vector<std::int64_t>& shape, bool writable) {
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

void heads(const Engine& engine, const py::object& x, const py::object& weight,
           const py::object& bias, const py::object& cosines, const py::object& sines,
           const py::object& rotary_object, const py::object& positions_object,
           const py::object& queries, const py::object& keys, const py::object& values,
           const std::vector<std::int64_t>& shape, const py::object& threads) {
  Arguments arguments;
  cpu::HeadsWork work{};
  work.to = heads_of(arguments, engine, queries, keys, values, shape, true);
  work.to.rotary = size_argument(rotary_object, "rotary");
  work.positions = size_argument(positions_object, "positions");
  if (work.to.rotary % 2 != 0 || work.to.rotary > work.to.features ||
      work.to.panels * lanes > work.positions) {
    throw ArgumentError("an even number of a head's features turns, at as many positions as " +
                        std::to_string(work.to.panels) + " panels have");
  }
  work.weight = arguments.weight(weight, "weight");
  same(work.weight.rows, 3 * work.to.heads * work.to.features, "the weight's rows");
  work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.cosines = arguments.floats(cosines, "cosines", work.to.rotary / 2 * work.positions);
  work.sines = arguments.floats(sines, "sines", work.to.rotary / 2 * work.positions);
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  const std::int64_t panels = work.to.sequences * work.to.panels;
  same(work.x.panels, (panels + 1) / 2 * 2, "the operand's panels");
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.heads(work, workers);
}

void attention(const Engine& engine, const py::object& queries, const py::object& keys,
               const py::object& values, const std::vector<std::int64_t>& shape,
               const py::object& out, const py::object& out_rows, const py::object& threads) {
  Arguments arguments;
  cpu::AttentionWork work{};
  work.from = heads_of(arguments, engine, queries, keys, values, shape, false);
  work.out = arguments.operand(out, "out", engine, size_argument(out_rows, "out_rows"), true);
  const std::int64_t panels = work.from.sequences * work.from.panels;
  same(work.out.panels, (panels + 1) / 2 * 2, "the output's panels");
  if (work.from.heads * work.from.features > work.out.rows) {
    throw ArgumentError("the heads' features do not fit the output's rows");
  }
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.attention(work, workers);
}

void mlp(const Engine& engine, const py::object& x, const py::object& weight,
         const py::object& bias, const std::string& gelu, const py::object& out,
         const py::object& out_rows, const py::object& out_row, const py::object& threads) {
  Arguments arguments;
  cpu::MlpWork work{};
  work.weight = arguments.weight(weight, "weight");
  work.bias = arguments.floats(bias, "bias", work.weight.rows);
  if (gelu != "none" && gelu != "tanh") refuse("gelu", "'none' (by erf) or 'tanh'");
  work.gelu = gelu == "none" ? cpu::Gelu::erf : cpu::Gelu::tanh;
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  work.out = arguments.operand(out, "out", engine, size_argument(out_rows, "out_rows"), true);
  work.out_row = size_argument(out_row, "out_row");
  same(work.out.panels, work.x.panels, "the output's panels");
  if (work.out_row % 2 != 0 || work.weight.rows % 2 != 0 ||
      work.out_row + work.weight.rows > work.out.rows) {
    throw ArgumentError("rows come in pairs, and all of them fit the output");
  }
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.mlp(work, workers);
}

void residual(const Engine& engine, const py::object& a, const py::object& weight,
              const py::object& bias, const py::object& x, const py::object& threads) {
  Arguments arguments;
  cpu::ResidualWork work{};
  work.weight = arguments.weight(weight, "weight");
  work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.a = arguments.operand(a, "a", engine, work.weight.columns);
  work.x = arguments.floats(x, "x", work.a.panels * work.weight.rows * lanes, true);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.residual(work, workers);
}

void project(const Engine& engine, const py::object& x, const py::object& weight,
             const py::object& bias, const py::object& to, const py::object& threads) {
  Arguments arguments;
  cpu::ProjectWork work{};
  work.weight = arguments.weight(weight, "weight");
  if (!bias.is_none()) work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  work.to = arguments.floats(to, "to", work.x.panels * work.weight.rows * lanes, true);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.project(work, workers);
}

void decode(const Engine& engine, const py::object& qkv, const py::object& cosines,
            const py::object& sines, const py::object& rotary_object,
            const py::object& positions_object, const py::object& position_object,
            const py::object& keys, const py::object& values,
            const std::vector<std::int64_t>& shape, const py::object& out,
            const py::object& out_rows, const py::object& threads) {
  Arguments arguments;
  if (shape.size() != 3 || *std::min_element(shape.begin(), shape.end()) < 1 ||
      *std::max_element(shape.begin(), shape.end()) > std::int64_t{1} << 24) {
    throw ArgumentError("the shape is (sequences, heads, features), all positive");
  }
  cpu::DecodeWork work{};
  work.cache.sequences = shape[0];
  work.cache.heads = shape[1];
  work.cache.features = shape[2];
  work.cache.rotary = size_argument(rotary_object, "rotary");
  work.positions = size_argument(positions_object, "positions");
  work.position = size_argument(position_object, "position");
  work.cache.panels = work.position / lanes + 1;
  take_cache(arguments, engine, work.cache, keys, values, true);
  if (work.cache.rotary % 2 != 0 || work.cache.rotary > work.cache.features ||
      work.position >= work.positions) {
    throw ArgumentError("an even number of a head's features turns, and position " +
                        std::to_string(work.position) + " is below " +
                        std::to_string(work.positions));
  }
  work.cosines = arguments.floats(cosines, "cosines", work.cache.rotary / 2 * work.positions);
  work.sines = arguments.floats(sines, "sines", work.cache.rotary / 2 * work.positions);
  work.out = arguments.operand(out, "out", engine, size_argument(out_rows, "out_rows"), true);
  same(work.out.panels, (work.cache.sequences + 2 * lanes - 1) / (2 * lanes) * 2,
       "the output's panels");
  if (work.cache.heads * work.cache.features > work.out.rows) {
    throw ArgumentError("the heads' features do not fit the output's rows");
  }
  work.qkv = arguments.floats(qkv, "qkv",
                              work.out.panels * work.cache.heads * 3 * work.cache.features * lanes);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.decode(work, workers);
}

void unpack(const Engine& engine, const py::object& x, const py::object& to,
            const py::object& panels_object, const py::object& features_object,
            const py::object& threads) {
  Arguments arguments;
  const std::int64_t panels = size_argument(panels_object, "panels");
  cpu::UnpackWork work{};
  work.features = size_argument(features_object, "features");
  work.x = arguments.floats(x, "x", panels * work.features * lanes);
  work.to = arguments.floats(to, "to", panels * work.features * lanes, true);
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.unpack(work, panels, workers);
}

void scores(const Engine& engine, const py::object& x, const py::object& weight,
            const py::object& targets, const py::object& tokens_object, const py::object& nll,
            const py::object& logsumexp, const py::object& target_logit, const py::object& argmax,
            const py::object& margin, const py::object& threads) {
  Arguments arguments;
  const std::int64_t tokens = size_argument(tokens_object, "tokens");
  cpu::CrossEntropyWork work{};
  work.weight = arguments.weight(weight, "weight");
  if (work.weight.rows >= std::int64_t{1} << 24) {
    throw ArgumentError("a vocabulary has fewer than 2^24 rows");
  }
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  work.targets = checked_ids(arguments, targets, "targets", work.x.panels, work.weight.rows);
  if (tokens > work.x.panels * lanes) throw ArgumentError("more tokens than the operand holds");
  cpu::Scores to{};
  to.nll = arguments.floats(nll, "nll", tokens, true);
  if (!argmax.is_none()) {
    to.logsumexp = arguments.floats(logsumexp, "logsumexp", tokens, true);
    to.target_logit = arguments.floats(target_logit, "target_logit", tokens, true);
    to.argmax = arguments.array<std::int64_t>(argmax, "argmax", "q", tokens, true);
    to.margin = arguments.floats(margin, "margin", tokens, true);
  }
  const std::size_t workers = thread_count(threads);
  const py::gil_scoped_release unlocked;
  engine.scores(work, tokens, to, workers);
}

}  // namespace

void bind_cpu(py::module_& m) {
  py::class_<Engine>(m, "CpuEngine", R"(The CPU kernels of one arithmetic and instruction set.

`arithmetic` is "float32", "bfloat16" or "split-bf16"; the latter two need "amx". `instructions` is
one of `instruction_sets()`, by default the best. Tokens lie in panels of 16, one to a lane: x is
float32 [panels, features, 16]; an operand, what a product reads, is a buffer of `planes` ×
`element_bytes` bytes per value, [panels, features padded to a multiple of 32, 16], in an even
number of panels. Matrices are float32, float16, or bfloat16 seen as uint16. Threads share the work
without a change to any result. ArgumentError where a buffer does not fit.)")
      .def(py::init(
               [](const std::string& arithmetic, const std::optional<std::string>& instructions) {
                 return Engine(isa(instructions), cpu::arithmetic_named(arithmetic));
               }),
           py::arg("arithmetic"), py::kw_only(), py::arg("instructions") = py::none())
      .def_property_readonly("planes", &Engine::planes)
      .def_property_readonly("element_bytes", &Engine::element_bytes)
      .def("embed", &embed, py::arg("table"), py::arg("ids"), py::arg("x"), py::arg("panels"),
           py::arg("threads"), "x = rows `ids` (int32, one per token) of `table`.")
      .def("pick", &pick, py::arg("matrix"), py::arg("rows"), py::arg("out"), py::arg("threads"),
           "Rows of a matrix as an operand; `rows` is int32, one per token, -1 a row of zeros.")
      .def("norm", &norm, py::arg("x"), py::arg("epsilon"), py::arg("weights"), py::arg("biases"),
           py::arg("outs"), py::arg("features"), py::arg("threads"),
           "LayerNorm of x, scaled and shifted into one operand or two.")
      .def("heads", &heads, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("cosines"),
           py::arg("sines"), py::arg("rotary"), py::arg("positions"), py::arg("queries"),
           py::arg("keys"), py::arg("values"), py::arg("shape"), py::arg("threads"),
           R"(Queries, keys and values of W x + b, W's rows being [heads, 3, features].

The first `rotary` features of queries and keys turn by their position; cosines and sines are
[rotary / 2, positions]. `shape` is (sequences, heads, features, panels). Queries have sequences ×
heads × panels rounded up to an even number × 16 × padded features values; keys and values as many,
or as many for more panels, which `decode` fills.)")
      .def("attention", &attention, py::arg("queries"), py::arg("keys"), py::arg("values"),
           py::arg("shape"), py::arg("out"), py::arg("out_rows"), py::arg("threads"),
           "Causal attention into rows [heads, features] of an operand of `out_rows` rows.")
      .def("mlp", &mlp, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("gelu"),
           py::arg("out"), py::arg("out_rows"), py::arg("out_row"), py::arg("threads"),
           "gelu(W x + b) into rows `out_row` and on of an operand; gelu is 'none' or 'tanh'.")
      .def("residual", &residual, py::arg("a"), py::arg("weight"), py::arg("bias"), py::arg("x"),
           py::arg("threads"), "x += W a + b.")
      .def("project", &project, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("to"),
           py::arg("threads"), "to = W x + b, float32 panels; the bias may be None.")
      .def("decode", &decode, py::arg("qkv"), py::arg("cosines"), py::arg("sines"),
           py::arg("rotary"), py::arg("positions"), py::arg("position"), py::arg("keys"),
           py::arg("values"), py::arg("shape"), py::arg("out"), py::arg("out_rows"),
           py::arg("threads"),
           R"(Attention of one token more of each sequence, all at `position`.

qkv is float32 panels [heads, 3, features] whose lanes are sequences. Keys and values are added to
those that `heads` and earlier calls have left there, with room for the position; values after it
must be zeros. `shape` is (sequences, heads, features). The result goes into rows [heads, features]
of an operand of `out_rows` rows.)")
      .def("unpack", &unpack, py::arg("x"), py::arg("to"), py::arg("panels"), py::arg("features"),
           py::arg("threads"), "x as float32 rows [16 panels, features].")
      .def("scores", &scores, py::arg("x"), py::arg("weight"), py::arg("targets"),
           py::arg("tokens"), py::arg("nll"), py::arg("logsumexp"), py::arg("target_logit"),
           py::arg("argmax"), py::arg("margin"), py::arg("threads"),
           R"(What softmax(W x) says of each token's target (int32, of all panels).

Written for the first `tokens` tokens; the last four may be None, for the nll alone. Logits are
never stored.)");
}

}  // namespace pythia_fast
