#include "cpu/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cpu/packed_weight.h"
#include "io/errors.h"
#include "io/workers.h"

namespace pythia_fast::cpu {
namespace {

// ---- Choosing
// ------------------------------------------------------------------------------------

const Kernels& kernels_for(Isa isa, Arithmetic arithmetic) {
  if (arithmetic != Arithmetic::f32) {
    if (isa != Isa::amx) {
      throw ArgumentError("products of bfloat16 need AMX, and " + std::string(name(isa)) +
                          " has none: take float32");
    }
#if defined(__x86_64__)
    return arithmetic == Arithmetic::bf16 ? amx_bf16() : amx_split();
#endif
  }
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return avx512_f32();
  if (isa == Isa::avx2) return avx2_f32();
#endif
  return portable_f32();
}

// ---- Scratch
// -------------------------------------------------------------------------------------

constexpr std::align_val_t alignment{64};

struct Free {
  void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
};
using Memory = std::unique_ptr<std::byte[], Free>;

// The calling thread's own, kept until the thread ends: a megabyte of fresh memory costs more than
// some kernels. What it held before is lost.
std::byte* scratch_of(std::size_t bytes) {
  thread_local Memory memory;
  thread_local std::size_t size = 0;
  if (size < bytes) {
    memory = Memory(static_cast<std::byte*>(::operator new[](bytes, alignment)));
    size = bytes;
  }
  return memory.get();
}

// ---- Cutting
// -------------------------------------------------------------------------------------

std::int64_t pieces_of(std::int64_t whole, std::int64_t piece) {
  return (whole + piece - 1) / piece;
}

// An even number of panels that gives each thread some, as far as there are enough. There is room
// for half as many where sums wait beside the activations in a core's L2, since K is cut, and half
// as many are enough where the weights need no packing.
std::int64_t group_of(const Kernels& kernels, const Weight& weight, std::int64_t panels,
                      std::size_t threads) {
  const std::int64_t share = pieces_of(panels, static_cast<std::int64_t>(threads));
  const bool half = weight.columns > kernels.block_k || weight.type == StoredType::packed;
  return std::min(half ? group_panels / 2 : group_panels, (share + 1) / 2 * 2);
}

template <typename Work>
void by_panels(std::size_t scratch_bytes, void (*kernel)(const Work&, void*), const Work& work,
               std::int64_t panels, std::size_t threads) {
  const std::int64_t each = 4;
  share(static_cast<std::size_t>(pieces_of(panels, each)), threads, [&](std::size_t piece) {
    Work part = work;
    part.panel_begin = static_cast<std::int64_t>(piece) * each;
    part.panel_end = std::min(panels, part.panel_begin + each);
    kernel(part, scratch_of(scratch_bytes));
  });
}

// Pieces of `rows_each` rows by a group of panels; a group's pieces follow each other, so that its
// activations stay in the cache.
template <typename Call>
void by_range(const Kernels& kernels, const Weight& weight, std::int64_t rows,
              std::int64_t rows_each, std::int64_t panels, std::size_t threads, const Call& call) {
  const std::int64_t group = group_of(kernels, weight, panels, threads);
  const std::int64_t in_rows = pieces_of(rows, rows_each);
  const std::int64_t pieces = in_rows * pieces_of(panels, group);
  share(static_cast<std::size_t>(pieces), threads, [&](std::size_t index) {
    const auto piece = static_cast<std::int64_t>(index);
    const std::int64_t row = piece % in_rows * rows_each, panel = piece / in_rows * group;
    call(Range{row, std::min(rows, row + rows_each), panel, std::min(panels, panel + group)},
         piece % in_rows, scratch_of(kernels.scratch_bytes));
  });
}

template <typename Work>
void product(const Kernels& kernels, void (*kernel)(const Work&, void*), const Work& work,
             std::int64_t rows, std::int64_t panels, std::size_t threads) {
  by_range(kernels, work.weight, rows, rows_at_once, panels, threads,
           [&](const Range& range, std::int64_t, void* scratch) {
             Work part = work;
             part.range = range;
             kernel(part, scratch);
           });
}

// ---- Joining the vocabulary's parts
// --------------------------------------------------------------

constexpr std::int64_t vocabulary_part = 4096;

struct Token {
  float best = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float second = -std::numeric_limits<float>::infinity();
  float index = 0;
  float target = 0;
};

// `next` covers higher rows than `so_far`.
Token join(const Token& so_far, const Token& next, bool has_target) {
  Token result;
  result.best = std::max(so_far.best, next.best);
  const auto share = [&](const Token& token) {
    return token.best == result.best ? token.sum : token.sum * std::exp(token.best - result.best);
  };
  result.sum = share(so_far) + share(next);
  result.second = std::max({so_far.second, next.second, std::min(so_far.best, next.best)});
  result.index = next.best > so_far.best ? next.index : so_far.index;
  result.target = has_target ? next.target : so_far.target;
  return result;
}

Token token_of(const float* running, std::int64_t lane) {
  return {running[lane], running[16 + lane], running[32 + lane], running[48 + lane],
          running[64 + lane]};
}

void put(const Scores& to, std::int64_t token, const Token& found) {
  const float log_sum = std::log(found.sum);
  to.nll[token] = (found.best - found.target) + log_sum;  // a small loss stays exact
  if (to.logsumexp != nullptr) to.logsumexp[token] = found.best + log_sum;
  if (to.target_logit != nullptr) to.target_logit[token] = found.target;
  if (to.argmax == nullptr) return;
  const bool number = found.sum == found.sum;
  to.argmax[token] = static_cast<std::int64_t>(found.index);
  to.margin[token] = number ? found.best - found.second : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

Arithmetic arithmetic_named(std::string_view name) {
  if (name == "float32") return Arithmetic::f32;
  if (name == "bfloat16") return Arithmetic::bf16;
  if (name == "split-bf16") return Arithmetic::split;
  throw ArgumentError("an arithmetic is float32, bfloat16 or split-bf16, not '" +
                      std::string(name) + "'");
}

Engine::Engine(Isa isa, Arithmetic arithmetic) : kernels_(&kernels_for(isa, arithmetic)) {}

void Engine::embed(EmbedWork work, std::int64_t panels, std::size_t threads) const {
  by_panels(kernels_->scratch_bytes, kernels_->embed, work, panels, threads);
}

void Engine::pick(PickWork work, std::int64_t panels, std::size_t threads) const {
  by_panels(kernels_->scratch_bytes, kernels_->pick, work, panels, threads);
}

void Engine::norm(NormWork work, std::int64_t panels, std::size_t threads) const {
  by_panels(kernels_->scratch_bytes, kernels_->norm, work, panels, threads);
}

void Engine::unpack(UnpackWork work, std::int64_t panels, std::size_t threads) const {
  by_panels(kernels_->scratch_bytes, kernels_->unpack, work, panels, threads);
}

void Engine::heads(HeadsWork work, std::size_t threads) const {
  const std::int64_t rows = work.to.heads * 3 * padded(work.to.features);
  product(*kernels_, kernels_->heads, work, rows, work.x.panels, threads);
}

void Engine::mlp(MlpWork work, std::size_t threads) const {
  product(*kernels_, kernels_->mlp, work, work.weight.rows, work.x.panels, threads);
}

void Engine::residual(ResidualWork work, std::size_t threads) const {
  product(*kernels_, kernels_->residual, work, work.weight.rows, work.a.panels, threads);
}

void Engine::attention(AttentionWork work, std::size_t threads) const {
  constexpr std::int64_t each = 8;  // pairs of panels: 256 queries
  const std::int64_t pairs = pieces_of(work.from.panels, 2), parts = pieces_of(pairs, each);
  const std::int64_t pieces = parts * work.from.sequences * work.from.heads;
  share(static_cast<std::size_t>(pieces), threads, [&](std::size_t index) {
    const auto piece = static_cast<std::int64_t>(index);
    AttentionWork part = work;
    part.sequence = piece / parts / work.from.heads;
    part.head = piece / parts % work.from.heads;
    // The last queries see the most keys: first, so that no thread is left with them at the end.
    part.pair_begin = (parts - 1 - piece % parts) * each;
    part.pair_end = std::min(pairs, part.pair_begin + each);
    kernels_->attention(part, scratch_of(kernels_->scratch_bytes));
  });
}

void Engine::project(ProjectWork work, std::size_t threads) const {
  product(*kernels_, kernels_->project, work, work.weight.rows, work.x.panels, threads);
}

void Engine::decode(DecodeWork work, std::size_t threads) const {
  const std::int64_t pieces = pieces_of(work.cache.sequences, 16) * work.cache.heads;
  share(static_cast<std::size_t>(pieces), threads, [&](std::size_t index) {
    const auto piece = static_cast<std::int64_t>(index);
    DecodeWork part = work;
    part.panel = piece / work.cache.heads;
    part.head = piece % work.cache.heads;
    kernels_->decode(part, scratch_of(kernels_->scratch_bytes));
  });
}

void Engine::scores(CrossEntropyWork work, std::int64_t tokens, const Scores& to,
                    std::size_t threads) const {
  const std::int64_t panels = work.x.panels, rows = work.weight.rows;
  const std::int64_t parts = pieces_of(rows, vocabulary_part);
  const std::int64_t stride = panels * running_floats;
  std::vector<float> running(static_cast<std::size_t>(parts * stride));
  work.with_best = to.argmax != nullptr;
  by_range(*kernels_, work.weight, rows, vocabulary_part, panels, threads,
           [&](const Range& range, std::int64_t part, void* scratch) {
             CrossEntropyWork piece = work;
             piece.range = range;
             piece.running = running.data() + part * stride + range.panel_begin * running_floats;
             kernels_->cross_entropy(piece, scratch);
           });
  share(static_cast<std::size_t>(pieces_of(tokens, 16)), threads, [&](std::size_t panel) {
    const auto first = static_cast<std::int64_t>(panel) * 16;
    for (std::int64_t lane = 0; lane < std::min<std::int64_t>(16, tokens - first); ++lane) {
      const float* at = running.data() + first / 16 * running_floats;
      const std::int64_t target_part = work.targets[first + lane] / vocabulary_part;
      Token found = token_of(at, lane);
      for (std::int64_t part = 1; part < parts; ++part) {
        found = join(found, token_of(at + part * stride, lane), part == target_part);
      }
      put(to, first + lane, found);
    }
  });
}

}  // namespace pythia_fast::cpu
