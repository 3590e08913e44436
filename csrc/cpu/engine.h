// The kernels on several threads: work cut in pieces whose results do not depend on the cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cpu/kernels.h"
#include "isa.h"

namespace pythia_fast::cpu {

// How products are taken: see operand.h. The two with bfloat16 need Isa::amx.
enum class Arithmetic { f32, bf16, split };

Arithmetic arithmetic_named(std::string_view name);  // "float32" …; ArgumentError for another

// Of each token. `argmax` and `margin` may be null, both or neither.
struct Scores {
  float* nll;
  float* logsumexp;
  float* target_logit;
  std::int64_t* argmax;
  float* margin;
};

// Each function does what the kernel of its name does, for all panels and all rows of the weights;
// ranges in the work given are overwritten.
class Engine {
 public:
  Engine(Isa isa, Arithmetic arithmetic);  // ArgumentError where the processor cannot

  const Kernels& kernels() const { return *kernels_; }
  std::size_t element_bytes() const { return kernels_->element_bytes; }
  std::size_t planes() const { return kernels_->planes; }

  void embed(EmbedWork work, std::int64_t panels, std::size_t threads) const;
  void pick(PickWork work, std::int64_t panels, std::size_t threads) const;
  void norm(NormWork work, std::int64_t panels, std::size_t threads) const;
  void heads(HeadsWork work, std::size_t threads) const;
  void attention(AttentionWork work, std::size_t threads) const;
  void mlp(MlpWork work, std::size_t threads) const;
  void residual(ResidualWork work, std::size_t threads) const;
  void unpack(UnpackWork work, std::int64_t panels, std::size_t threads) const;

  void project(ProjectWork work, std::size_t threads) const;
  void decode(DecodeWork work, std::size_t threads) const;

  // The first `tokens` tokens' scores. Targets are rows of the weights.
  void scores(CrossEntropyWork work, std::int64_t tokens, const Scores& to,
              std::size_t threads) const;

 private:
  const Kernels* kernels_;
};

}  // namespace pythia_fast::cpu
