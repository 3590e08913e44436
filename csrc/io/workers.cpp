// Threads are kept: beginning one costs as much as a small kernel, and its first use of the tile
// registers more. They are never joined, so that a process may end while some wait for work.
#include "io/workers.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace pythia_fast {
namespace {

// One call of `share`: its pieces are handed out one by one to whoever asks.
class Job {
 public:
  Job(std::size_t pieces, const std::function<void(std::size_t)>& work)
      : pieces_(pieces), work_(work), failed_piece_(pieces) {}

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

  std::size_t helpers = 0;  // at work on it; the pool's mutex guards it

 private:
  const std::size_t pieces_;
  const std::function<void(std::size_t)>& work_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex guard_;
  std::size_t failed_piece_;
  std::exception_ptr failure_;
};

class Pool {
 public:
  void share(Job& job, std::size_t helpers) {
    const Leave leave{*this, job};
    {
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; i < helpers; ++i) waiting_.push_back(&job);
      while (idle_ < waiting_.size() && begin_thread()) {
      }
    }
    wake_.notify_all();
    job.run();
  }

 private:
  // Nobody knows of the job any more when this is gone, even if memory for waiting ran out.
  struct Leave {
    Pool& pool;
    Job& job;
    ~Leave() {
      std::unique_lock lock(pool.mutex_);
      std::erase(pool.waiting_, &job);  // who has not come by now finds nothing left to do
      pool.done_.wait(lock, [&] { return job.helpers == 0; });
    }
  };

  // With the mutex held. False where the system has no more threads or memory: the threads that
  // there are do the work, with the same result.
  bool begin_thread() {
    try {
      std::thread([this] { work(); }).detach();
    } catch (const std::exception&) {
      return false;
    }
    ++idle_;
    return true;
  }

  [[noreturn]] void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !waiting_.empty(); });
      Job& job = *waiting_.front();
      waiting_.pop_front();
      --idle_;
      ++job.helpers;
      lock.unlock();
      job.run();
      lock.lock();
      ++idle_;
      if (--job.helpers == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> waiting_;
  std::size_t idle_ = 0;
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
  Job job(pieces, work);
  const std::size_t hands = std::min(pieces, threads);
  if (hands > 1) {
    pool()->share(job, hands - 1);
  } else {
    job.run();
  }
  job.rethrow();
}

}  // namespace pythia_fast
