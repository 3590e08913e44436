// The kernels' interface: plain data in, one table of functions per instruction set and arithmetic.
// Each function does one piece of work on the calling thread; cutting work in pieces is the
// caller's. Memory for activations and scratch is aligned to 64 bytes.
//
// Tokens lie in panels of sixteen. A sequence takes whole panels, the last filled up with tokens
// that nobody looks at; a product takes panels in pairs, so there is an even number of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/types.h"

namespace pythia_fast::cpu {

// A range of rows of a product (multiples of 32, but for the last end) and of panels (even).
struct Range {
  std::int64_t row_begin, row_end;
  std::int64_t panel_begin, panel_end;
};

// The floats of scratch that a product over `range` needs where its K is cut.
inline constexpr std::int64_t rows_at_once = 256;
inline constexpr std::int64_t group_panels = 64;  // half of that where K is cut
inline constexpr std::size_t waiting_floats = rows_at_once * group_panels * 16;

struct CrossEntropyWork {
  Weight weight;
  OperandView x;
  const std::int32_t* targets;  // one per token of all panels
  float* running;               // running_floats per panel of the range
  Range range;
  bool with_best;
};
inline constexpr std::int64_t running_floats = 5 * 16;  // best, sum, second, index, target

struct EmbedWork {
  Weight weight;
  const std::int32_t* ids;  // one per token of all panels
  float* x;                 // [panels][columns][16]
  std::int64_t panel_begin, panel_end;
};

// Rows [begin, end) of a product by a row-major matrix, in the form in which it reads them.
struct PackWork {
  Weight weight;
  RowOrder order;
  void* to;  // blocks of 32 rows by the columns padded to a multiple of 32, in all planes
  std::int64_t row_begin, row_end;  // the first a multiple of 32
};

// Rows of a matrix, picked by number, as an operand. The number -1 stands for a row of zeros.
struct PickWork {
  Weight weight;
  const std::int32_t* rows;  // one per token of all panels
  OperandView out;
  std::int64_t panel_begin, panel_end;
};

struct Affine {
  const float* weight;
  const float* bias;
};

// LayerNorm of x once, scaled and shifted into one or two operands.
struct NormWork {
  const float* x;
  float epsilon;
  std::int64_t outputs;
  Affine affine[2];
  OperandView out[2];
  std::int64_t panel_begin, panel_end;
};

// Queries, keys and values of [sequences][heads], as attention reads them. A sequence has an even
// number of panels here; features are padded to a multiple of 32.
struct Heads {
  void* queries;
  void* keys;
  void* values;
  std::int64_t sequences, heads;
  std::int64_t features;  // of a head
  std::int64_t panels;    // of a sequence, outside
  std::int64_t capacity;  // panels of a sequence for which keys and values have room
  std::int64_t rotary;    // how many features turn
};

struct HeadsWork {
  Weight weight;  // rows [heads][3][features]
  const float* bias;
  const float* cosines;  // [rotary / 2][positions]
  const float* sines;
  std::int64_t positions;
  std::int64_t sequence_positions;  // from one sequence's to the next one's; 0: all have the same
  OperandView x;
  Heads to;
  Range range;  // of rows padded to [heads][3][features padded]
};

// Causal, or among the branches of a tree: query q sees key k where k ≤ q < end of k. All see key
// 0, whose end is the sequence's panels' last.
struct AttentionWork {
  Heads from;
  const std::int32_t* ends;  // [sequences][panels][16], each beyond its own key; null: causal
  OperandView out;           // rows [heads][features] first
  std::int64_t sequence;     // of one sequence and head,
  std::int64_t head;
  std::int64_t pair_begin, pair_end;  // the queries of these pairs of panels
};

// One token more of each of the cache's sequences, all at `position`: its key and value are added
// to the cache, and its query attends to all up to them. Values after them must be finite.
struct DecodeWork {
  const float* qkv;  // [panels][heads][3][features][16]: lanes are sequences
  const float* cosines;
  const float* sines;
  std::int64_t positions;
  Heads cache;      // without queries
  OperandView out;  // rows [heads][features] first
  std::int64_t position;
  std::int64_t panel, head;  // of sixteen sequences and one head
};

enum class Gelu { erf, tanh };

struct MlpWork {
  Weight weight;
  const float* bias;
  Gelu gelu;
  OperandView x;
  OperandView out;
  std::int64_t out_row;  // even; where row 0 goes
  Range range;
};

// to = W x + bias
struct ProjectWork {
  Weight weight;
  const float* bias;  // null for none
  OperandView x;
  float* to;  // [panels][rows][16]
  Range range;
};

// x += W a + bias
struct ResidualWork {
  Weight weight;
  const float* bias;
  OperandView a;
  float* x;  // [panels][rows][16]
  Range range;
};

// [panels][features][16] to token-major rows.
struct UnpackWork {
  const float* x;
  std::int64_t features;
  float* to;  // [16 panels][features]
  std::int64_t panel_begin, panel_end;
};

struct Kernels {
  void (*embed)(const EmbedWork&, void* scratch);
  void (*pack)(const PackWork&, void* scratch);
  void (*pick)(const PickWork&, void* scratch);
  void (*norm)(const NormWork&, void* scratch);
  void (*heads)(const HeadsWork&, void* scratch);
  void (*attention)(const AttentionWork&, void* scratch);
  void (*mlp)(const MlpWork&, void* scratch);
  void (*residual)(const ResidualWork&, void* scratch);
  void (*cross_entropy)(const CrossEntropyWork&, void* scratch);
  void (*unpack)(const UnpackWork&, void* scratch);
  void (*project)(const ProjectWork&, void* scratch);
  void (*decode)(const DecodeWork&, void* scratch);
  std::size_t element_bytes;
  std::size_t planes;
  std::int64_t block_k;       // the longest K that is not cut
  std::size_t scratch_bytes;  // that every call of a kernel gets, aligned to 64
};

// One table per file kernels_<isa>.cpp and arithmetic.
const Kernels& portable_f32();
const Kernels& avx2_f32();
const Kernels& avx512_f32();
const Kernels& amx_bf16();
const Kernels& amx_split();

}  // namespace pythia_fast::cpu
