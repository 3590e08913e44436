// The CPU kernels.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings_arguments.h"
#include "cpu/engine.h"
#include "io/errors.h"

namespace pythia_fast {
namespace {

using cpu::Engine;

void embed(const Engine& engine, const py::object& table, const py::object& ids,
           const py::object& x, const py::object& panels_object, const py::object& threads) {
  Arguments arguments;
  const std::int64_t panels = size_argument(panels_object, "panels");
  cpu::EmbedWork work{};
  work.weight = arguments.weight(table, "table");
  work.ids = arguments.ids(ids, "ids", panels, work.weight.rows);
  work.x = arguments.floats(x, "x", panels * work.weight.columns * lanes, true);
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  engine.embed(work, panels, workers);
}

// A new matrix packed, or `into` packed anew.
py::object pack(const Engine& engine, const py::object& matrix, const py::object& threads,
                const py::object& into, const py::object& features, const py::object& rotary) {
  Arguments arguments;
  const cpu::Weight weight = arguments.weight(matrix, "matrix");
  const cpu::RowOrder order{size_argument(features, "features"), size_argument(rotary, "rotary")};
  if (order.features % 2 != 0 || order.rotary % 2 != 0 || order.rotary > order.features ||
      (order.features != 0 && weight.rows % (3 * order.features) != 0)) {
    throw ArgumentError(
        "heads have an even number of features, of which an even number turns, and the rows are "
        "[heads, 3, features]");
  }
  py::object to = into;
  if (to.is_none()) {
    to = py::cast(
        std::make_unique<cpu::PackedWeight>(engine.kernels(), weight.rows, weight.columns, order));
  } else if (!py::isinstance<cpu::PackedWeight>(to)) {
    refuse("into", "a PackedWeight");
  }
  auto& packed = to.cast<cpu::PackedWeight&>();
  if (&packed.kernels() != &engine.kernels() || packed.rows() != weight.rows ||
      packed.columns() != weight.columns || !(packed.order() == order)) {
    refuse("into", "packed by these kernels from a matrix of this shape and order");
  }
  const std::size_t workers = thread_count(threads);
  {
    const Unlocked unlocked;
    packed.pack(weight, workers);
  }
  return to;
}

void pick(const Engine& engine, const py::object& matrix, const py::object& rows,
          const py::object& out, const py::object& threads) {
  Arguments arguments;
  cpu::PickWork work{};
  work.weight = arguments.weight(matrix, "matrix");
  work.out = arguments.operand(out, "out", engine, work.weight.columns, true);
  const std::int64_t panels = work.out.panels;
  work.rows = arguments.ids(rows, "rows", panels, work.weight.rows, -1);
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
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
  const Unlocked unlocked;
  engine.norm(work, panels, workers);
}

void heads(const Engine& engine, const py::object& x, const py::object& weight,
           const py::object& bias, const py::object& cosines, const py::object& sines,
           const py::object& rotary_object, const py::object& positions_object,
           const py::object& queries, const py::object& keys, const py::object& values,
           const std::vector<std::int64_t>& shape, const py::object& threads, bool each_its_own) {
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
  if (each_its_own) {
    work.sequence_positions = work.to.panels * lanes;
    same(work.positions, work.to.sequences * work.sequence_positions, "the sequences' positions");
  }
  work.weight = arguments.factor(weight, "weight", engine, {work.to.features, work.to.rotary});
  same(work.weight.rows, 3 * work.to.heads * work.to.features, "the weight's rows");
  work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.cosines = arguments.floats(cosines, "cosines", work.to.rotary / 2 * work.positions);
  work.sines = arguments.floats(sines, "sines", work.to.rotary / 2 * work.positions);
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  const std::int64_t panels = work.to.sequences * work.to.panels;
  same(work.x.panels, (panels + 1) / 2 * 2, "the operand's panels");
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  engine.heads(work, workers);
}

void attention(const Engine& engine, const py::object& queries, const py::object& keys,
               const py::object& values, const std::vector<std::int64_t>& shape,
               const py::object& out, const py::object& out_rows, const py::object& threads,
               const py::object& ends) {
  Arguments arguments;
  cpu::AttentionWork work{};
  work.from = heads_of(arguments, engine, queries, keys, values, shape, false);
  if (!ends.is_none()) work.ends = ends_of(arguments, ends, work.from);
  work.out = arguments.operand(out, "out", engine, size_argument(out_rows, "out_rows"), true);
  const std::int64_t panels = work.from.sequences * work.from.panels;
  same(work.out.panels, (panels + 1) / 2 * 2, "the output's panels");
  if (work.from.heads * work.from.features > work.out.rows) {
    throw ArgumentError("the heads' features do not fit the output's rows");
  }
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  engine.attention(work, workers);
}

void mlp(const Engine& engine, const py::object& x, const py::object& weight,
         const py::object& bias, const std::string& gelu, const py::object& out,
         const py::object& out_rows, const py::object& out_row, const py::object& threads) {
  Arguments arguments;
  cpu::MlpWork work{};
  work.weight = arguments.factor(weight, "weight", engine);
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
  const Unlocked unlocked;
  engine.mlp(work, workers);
}

void residual(const Engine& engine, const py::object& a, const py::object& weight,
              const py::object& bias, const py::object& x, const py::object& threads) {
  Arguments arguments;
  cpu::ResidualWork work{};
  work.weight = arguments.factor(weight, "weight", engine);
  work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.a = arguments.operand(a, "a", engine, work.weight.columns);
  work.x = arguments.floats(x, "x", work.a.panels * work.weight.rows * lanes, true);
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
  engine.residual(work, workers);
}

void project(const Engine& engine, const py::object& x, const py::object& weight,
             const py::object& bias, const py::object& to, const py::object& threads) {
  Arguments arguments;
  cpu::ProjectWork work{};
  work.weight = arguments.factor(weight, "weight", engine);
  if (!bias.is_none()) work.bias = arguments.floats(bias, "bias", work.weight.rows);
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  work.to = arguments.floats(to, "to", work.x.panels * work.weight.rows * lanes, true);
  const std::size_t workers = thread_count(threads);
  const Unlocked unlocked;
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
      *std::max_element(shape.begin(), shape.end()) > std::int64_t{1} << 20) {
    throw ArgumentError(
        "the shape is (sequences, heads, features), all positive and no more than memory holds");
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
  const Unlocked unlocked;
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
  const Unlocked unlocked;
  engine.unpack(work, panels, workers);
}

void scores(const Engine& engine, const py::object& x, const py::object& weight,
            const py::object& targets, const py::object& tokens_object, const py::object& nll,
            const py::object& logsumexp, const py::object& target_logit, const py::object& argmax,
            const py::object& margin, const py::object& threads) {
  Arguments arguments;
  const std::int64_t tokens = size_argument(tokens_object, "tokens");
  cpu::CrossEntropyWork work{};
  work.weight = arguments.factor(weight, "weight", engine);
  if (work.weight.rows >= std::int64_t{1} << 24) {
    throw ArgumentError("a vocabulary has fewer than 2^24 rows");
  }
  work.x = arguments.operand(x, "x", engine, work.weight.columns);
  work.targets = arguments.ids(targets, "targets", work.x.panels, work.weight.rows);
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
  const Unlocked unlocked;
  engine.scores(work, tokens, to, workers);
}

}  // namespace

void bind_cpu(py::module_& m) {
  py::class_<cpu::PackedWeight>(m, "PackedWeight",
                                "A matrix as the products of one CpuEngine read it: see `pack`.")
      .def_property_readonly("rows", &cpu::PackedWeight::rows)
      .def_property_readonly("columns", &cpu::PackedWeight::columns)
      .def_property_readonly("nbytes", &cpu::PackedWeight::bytes);
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
      .def("pack", &pack, py::arg("matrix"), py::arg("threads"), py::kw_only(),
           py::arg("into") = py::none(), py::arg("features") = 0, py::arg("rotary") = 0,
           R"(The matrix in the form in which products read it, as a PackedWeight.

Products take it in the place of the matrix and give the same results. `into` is one to be packed
anew, from a matrix of the same shape. `features` and `rotary` are for the weight of `heads`.)")
      .def("pick", &pick, py::arg("matrix"), py::arg("rows"), py::arg("out"), py::arg("threads"),
           "Rows of a matrix as an operand; `rows` is int32, one per token, -1 a row of zeros.")
      .def("norm", &norm, py::arg("x"), py::arg("epsilon"), py::arg("weights"), py::arg("biases"),
           py::arg("outs"), py::arg("features"), py::arg("threads"),
           "LayerNorm of x, scaled and shifted into one operand or two.")
      .def("heads", &heads, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("cosines"),
           py::arg("sines"), py::arg("rotary"), py::arg("positions"), py::arg("queries"),
           py::arg("keys"), py::arg("values"), py::arg("shape"), py::arg("threads"), py::kw_only(),
           py::arg("each_its_own") = false,
           R"(Queries, keys and values of W x + b, W's rows being [heads, 3, features].

The first `rotary` features of queries and keys turn by their position; cosines and sines are
[rotary / 2, positions], those of every sequence, or, `each_its_own`, of one sequence's panels after
the other's. `shape` is (sequences, heads, features, panels). Queries have sequences ×
heads × panels rounded up to an even number × 16 × padded features values; keys and values as many,
or as many for more panels, which `decode` fills.)")
      .def("attention", &attention, py::arg("queries"), py::arg("keys"), py::arg("values"),
           py::arg("shape"), py::arg("out"), py::arg("out_rows"), py::arg("threads"), py::kw_only(),
           py::arg("ends") = py::none(),
           R"(Attention into rows [heads, features] of an operand of `out_rows` rows.

Causal, or in a tree: `ends`, int32 [sequences, panels × 16], says up to where, exclusively, each
token is seen by those that follow it. The first one's is panels × 16.)")
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
those that `heads` and earlier calls have left there, with room for the position; after it there
may be any finite numbers: they count for nothing. `shape` is (sequences, heads, features). The result goes into rows [heads, features]
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
