#include "io/workers.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pythia_fast {

void share(std::size_t pieces, std::size_t threads, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex guard;
  std::size_t failed_piece = pieces;
  std::exception_ptr failure;

  const auto run = [&]() noexcept {
    while (!failed.load(std::memory_order_relaxed)) {
      const std::size_t piece = next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= pieces) return;
      try {
        work(piece);
      } catch (...) {
        failed.store(true, std::memory_order_relaxed);
        const std::lock_guard lock(guard);
        if (piece < failed_piece) {
          failed_piece = piece;
          failure = std::current_exception();
        }
      }
    }
  };

  {
    std::vector<std::jthread> workers;
    const std::size_t helpers = std::min(pieces, threads);
    workers.reserve(helpers);
    try {
      for (std::size_t i = 1; i < helpers; ++i) workers.emplace_back(run);
    } catch (const std::system_error&) {
      // No more threads to be had: those that there are do the work, with the same result.
    }
    run();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pythia_fast
