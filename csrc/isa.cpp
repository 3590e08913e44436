#include "isa.h"

#include <array>
#include <cstddef>

#include "io/errors.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pythia_fast {
namespace {

constexpr std::array<std::string_view, 4> names{"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)

struct Cpuid {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  Cpuid(unsigned int leaf, unsigned int subleaf) {
    if (__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) == 0) a = b = c = d = 0;
  }
};

constexpr bool has(unsigned int bits, unsigned int bit) { return (bits >> bit & 1U) != 0; }

// clang 14 knows "f16c" and the AMX features by none of __builtin_cpu_supports' names.
bool has_f16c() { return has(Cpuid(1, 0).c, 29); }

bool has_amx() {
  const unsigned int features = Cpuid(7, 0).d;
  return has(features, 22) && has(features, 24) && has(Cpuid(7, 1).a, 5);
}

// Linux gives a process the 8 KB of tile state only if it asks.
bool tiles_permitted() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return permitted;
#else
  return false;
#endif
}

// Whether the system saves the wide registers is part of the builtins' answer.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("popcnt") && has_f16c();
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool find(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return has_avx2();
    case Isa::avx512:
      return has_avx512();
    case Isa::amx:
      return has_avx512() && has_amx() && tiles_permitted();
  }
  __builtin_unreachable();
}

#else

bool find(Isa isa) { return isa == Isa::portable; }

#endif

}  // namespace

bool supported(Isa isa) {
  static const std::array<bool, names.size()> found{find(Isa::portable), find(Isa::avx2),
                                                    find(Isa::avx512), find(Isa::amx)};
  return found[static_cast<std::size_t>(isa)];
}

Isa best_isa() {
  for (const Isa isa : {Isa::amx, Isa::avx512, Isa::avx2}) {
    if (supported(isa)) return isa;
  }
  return Isa::portable;
}

std::string_view name(Isa isa) { return names[static_cast<std::size_t>(isa)]; }

std::vector<std::string> isa_names() {
  std::vector<std::string> result;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::amx}) {
    if (supported(isa)) result.emplace_back(name(isa));
  }
  return result;
}

Isa isa_named(std::string_view wanted) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != wanted) continue;
    const Isa isa = static_cast<Isa>(i);
    if (!supported(isa)) throw ArgumentError("this processor has no " + std::string(wanted));
    return isa;
  }
  throw ArgumentError("no instruction set '" + std::string(wanted) + "'; see instruction_sets()");
}

}  // namespace pythia_fast
