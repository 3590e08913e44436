#include "io/guard.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <csetjmp>

namespace pythia_fast {
namespace {

// A piece of guarded work, on the stack of its thread.
struct Frame {
  sigjmp_buf landing;
  std::fenv_t rounding;  // the system enters a handler with the default one
  std::span<const Bytes> ranges;
  const std::byte* volatile address;
  Frame* outer;
};

// How far this thread has come in passing a signal on.
struct Passing {
  std::size_t level;          // handlers passed over
  bool inside;                // one that was called has not returned
  const void* returned_from;  // the fault after which the last one has
};

// In the thread's static block: a handler must not be the first to use them and have to allocate.
#define PF_STATIC_TLS __attribute__((tls_model("initial-exec"))) thread_local
PF_STATIC_TLS Frame* innermost = nullptr;
PF_STATIC_TLS Passing passing{};

// The handlers that were found in the place of ours, oldest first. Never removed.
struct Found {
  struct sigaction action;
  std::atomic<bool> complete;
};
constexpr std::size_t most_found = 16;
std::array<Found, most_found> found;
std::atomic<std::size_t> found_count{0};

bool same(const struct sigaction& a, const struct sigaction& b) {
  if (((a.sa_flags ^ b.sa_flags) & SA_SIGINFO) != 0) return false;
  return (a.sa_flags & SA_SIGINFO) != 0 ? a.sa_sigaction == b.sa_sigaction
                                        : a.sa_handler == b.sa_handler;
}

std::size_t found_so_far() {
  return std::min(found_count.load(std::memory_order_acquire), most_found);
}

// No lock: a fork would leave it locked in the child. Two threads may note the same handler.
void note(const struct sigaction& action) {
  const std::size_t known = found_so_far();
  for (std::size_t i = 0; i < known; ++i) {
    if (found[i].complete.load(std::memory_order_acquire) && same(found[i].action, action)) return;
  }
  if (known == most_found) return;
  const std::size_t place = found_count.fetch_add(1);
  if (place >= most_found) return;
  found[place].action = action;
  found[place].complete.store(true, std::memory_order_release);
}

// The `level`-th newest; null is the system's default.
const struct sigaction* found_at(std::size_t level) {
  for (std::size_t i = found_so_far(); i-- > 0;) {
    if (found[i].complete.load(std::memory_order_acquire) && level-- == 0) return &found[i].action;
  }
  return nullptr;
}

void by_default(int signal, bool fault) {
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigemptyset(&standard.sa_mask);
  ::sigaction(signal, &standard, nullptr);
  if (!fault) ::raise(signal);  // a fault comes again by itself, where a debugger looks for it
}

// faulthandler puts back what it found, which may be ours, and raises the signal again; Python's
// own handler returns, and the fault comes again. Both times it is the next one's turn.
void pass_on(int signal, siginfo_t* info, void* context) {
  const bool fault = info->si_code > 0;  // not sent by raise() or kill()
  Passing& state = passing;
  const bool again = fault ? state.returned_from == info->si_addr : state.inside;
  state.level = again ? state.level + 1 : 0;
  state.returned_from = nullptr;
  const struct sigaction* next = found_at(state.level);
  const bool with_info = next != nullptr && (next->sa_flags & SA_SIGINFO) != 0;
  if (next == nullptr || (!with_info && next->sa_handler == SIG_DFL)) {
    by_default(signal, fault);
  } else if (!with_info && next->sa_handler == SIG_IGN) {
    if (fault) by_default(signal, fault);  // as the system does
  } else {
    state.inside = true;
    if (with_info) {
      next->sa_sigaction(signal, info, context);
    } else {
      next->sa_handler(signal);
    }
    state.inside = false;
    if (fault) state.returned_from = info->si_addr;
  }
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (Frame* frame = info->si_code > 0 ? innermost : nullptr; frame != nullptr;
       frame = frame->outer) {
    for (const Bytes range : frame->ranges) {
      if (address < range.data() || address >= range.data() + range.size()) continue;
      frame->address = address;
      ::siglongjmp(frame->landing, 1);
    }
  }
  const int before = errno;
  pass_on(signal, info, context);
  errno = before;
}

void install() {
  struct sigaction now{};
  struct sigaction ours{};
  ours.sa_sigaction = &on_sigbus;
  // SA_NODEFER: the signal is not blocked in the handler, so that a jump need not unblock it.
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ::sigemptyset(&ours.sa_mask);
  if (::sigaction(SIGBUS, nullptr, &now) != 0 || same(now, ours)) return;
  note(now);
  ::sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

const std::byte* guarded(std::span<const Bytes> ranges, void (*work)(void*), void* argument) {
  install();
  Frame frame;
  frame.ranges = ranges;
  frame.outer = innermost;
  std::fegetenv(&frame.rounding);
  if (sigsetjmp(frame.landing, 0) != 0) {
    innermost = frame.outer;
    std::fesetenv(&frame.rounding);
    return frame.address;
  }
  innermost = &frame;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  work(argument);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  innermost = frame.outer;
  return nullptr;
}

}  // namespace pythia_fast
