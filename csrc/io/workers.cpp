// Threads are kept: beginning one costs as much as a small kernel, and its first use of the tile
// registers more. They are never joined, so that a process may end while some wait for work.
//
// To wake one that sleeps takes 20 to 100 us, so that who waits looks out for a while first:
// between two kernels of a forward pass nobody sleeps. The caller waits for nobody to wake, and
// takes back what nobody has taken up when it is done.
#include "io/workers.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace pythia_fast {
namespace {

// How long to look out before sleeping: longer than what Python does between two kernels, and not
// more than a few times what a wake-up costs.
constexpr std::chrono::microseconds lookout{100};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether `ready` came true within the time.
template <typename Ready>
bool look_out(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + lookout;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

// One call of `share`: its pieces are handed out one by one to whoever asks.
class Job {
 public:
  Job(std::size_t pieces, const std::function<void(std::size_t)>& work, bool many)
      : crowded(many), pieces_(pieces), work_(work), failed_piece_(pieces) {}

  void run() noexcept {
    while (!failed_.load(std::memory_order_relaxed)) {
      const std::size_t piece = next_.fetch_add(1, std::memory_order_relaxed);
      if (piece >= pieces_) return;
      try {
        work_(piece);
      } catch (...) {
        failed_.store(true, std::memory_order_relaxed);
        const std::lock_guard lock(guard_);
        if (piece < failed_piece_) {
          failed_piece_ = piece;
          failure_ = std::current_exception();
        }
      }
    }
  }

  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

  const bool crowded;                   // more threads than cores: who waits must not be in the way
  std::atomic<std::size_t> helpers{0};  // who have it or may take it up

 private:
  const std::size_t pieces_;
  const std::function<void(std::size_t)>& work_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex guard_;
  std::size_t failed_piece_;
  std::exception_ptr failure_;
};

// Sees to it that a thread that sleeps wakes on another core than the caller's. Left to itself, a
// system may put it there although others are idle (in a virtual machine, those that have slept
// for long can count as taken), and then one waits for the other: no gain from two threads.
class Elsewhere {
 public:
  void keep_off([[maybe_unused]] std::thread::native_handle_type sleeper) {
#if defined(__linux__)
    const int here = ::sched_getcpu();
    if (here < 0 || kept_off_) return;  // already, by one who took the work back
    cpu_set_t own;
    if (::pthread_getaffinity_np(sleeper, sizeof own, &own) != 0) return;
    cpu_set_t others = own;
    CPU_CLR(static_cast<std::size_t>(here), &others);
    if (CPU_COUNT(&others) == 0) return;
    if (::pthread_setaffinity_np(sleeper, sizeof others, &others) != 0) return;
    own_ = own;
    kept_off_ = true;
#endif
  }

  // By the thread itself, once it is awake: it may go again wherever it might before.
  void free() {
#if defined(__linux__)
    if (kept_off_) ::sched_setaffinity(0, sizeof own_, &own_);
    kept_off_ = false;
#endif
  }

 private:
#if defined(__linux__)
  cpu_set_t own_;
  bool kept_off_ = false;
#endif
};

class Pool {
 public:
  void share(Job& job, std::size_t helpers) {
    const Leave leave{*this, job};
    for (std::size_t i = 0; i < helpers && call(job); ++i) {
    }
    job.run();
  }

 private:
  struct Worker {
    std::atomic<Job*> job{nullptr};  // to take up; who has none is in `idle_` or at work
    std::condition_variable wake;
    bool asleep = false;
    std::thread::native_handle_type handle{};
    Elsewhere elsewhere;
  };

  // Nobody knows of the job any more when this is gone.
  struct Leave {
    Pool& pool;
    Job& job;
    ~Leave() {
      pool.take_back(job);
      const auto done = [&] { return job.helpers.load(std::memory_order_acquire) == 0; };
      if (job.crowded ? done() : look_out(done)) return;
      std::unique_lock lock(pool.mutex_);
      ++pool.callers_;
      pool.done_.wait(lock, done);
      --pool.callers_;
    }
  };

  // One helper more. False where the system has no more threads or memory: the threads that there
  // are do the work, with the same result.
  bool call(Job& job) {
    std::unique_lock lock(mutex_);
    if (idle_.empty() && !begin_thread()) return false;
    Worker& worker = *idle_.back();
    idle_.pop_back();
    job.helpers.fetch_add(1, std::memory_order_relaxed);
    worker.job.store(&job, std::memory_order_relaxed);
    if (!worker.asleep) return true;
    worker.elsewhere.keep_off(worker.handle);
    lock.unlock();
    worker.wake.notify_one();
    return true;
  }

  void take_back(Job& job) {
    const std::lock_guard lock(mutex_);
    for (const auto& worker : workers_) {
      if (worker->job.load(std::memory_order_relaxed) != &job) continue;
      worker->job.store(nullptr, std::memory_order_relaxed);
      idle_.push_back(worker.get());
      job.helpers.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  // With the mutex held.
  bool begin_thread() {
    try {
      idle_.reserve(workers_.size() + 1);  // none that comes back can fail to
      workers_.push_back(std::make_unique<Worker>());
    } catch (const std::exception&) {
      return false;
    }
    Worker& worker = *workers_.back();
    try {
      std::thread thread([this, &worker] { work(worker); });
      worker.handle = thread.native_handle();
      thread.detach();
    } catch (const std::exception&) {
      workers_.pop_back();
      return false;
    }
    idle_.push_back(&worker);
    return true;
  }

  [[noreturn]] void work(Worker& me) {
    const auto called = [&] { return me.job.load(std::memory_order_relaxed) != nullptr; };
    for (bool crowded = false;;) {
      if (!crowded) look_out(called);
      std::unique_lock lock(mutex_);
      while (!called()) {
        me.asleep = true;
        me.wake.wait(lock);
        me.asleep = false;
        if (!called()) me.elsewhere.free();  // it was taken back
      }
      Job& job = *me.job.exchange(nullptr, std::memory_order_relaxed);
      lock.unlock();
      me.elsewhere.free();
      job.run();
      crowded = job.crowded;
      lock.lock();
      idle_.push_back(&me);
      const bool last = job.helpers.fetch_sub(1, std::memory_order_release) == 1;  // and it is gone
      if (last && callers_ > 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;  // the last to have worked are the last, and the first to be called
  std::size_t callers_ = 0;    // asleep
};

// After a fork the child has none of the threads, and perhaps a locked mutex: it begins anew.
Pool*& pool() {
  static Pool* current = [] {
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { pool() = new Pool; });
#endif
    return new Pool;
  }();
  return current;
}

}  // namespace

void share(std::size_t pieces, std::size_t threads, const std::function<void(std::size_t)>& work) {
  static const std::size_t cores = std::thread::hardware_concurrency();
  const std::size_t hands = std::min(pieces, threads);
  Job job(pieces, work, hands > cores);
  if (hands > 1) {
    pool()->share(job, hands - 1);
  } else {
    job.run();
  }
  job.rethrow();
}

}  // namespace pythia_fast
