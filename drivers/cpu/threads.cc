// What: the pool behind threads.h.
// Invariant: `epoch` is odd exactly while a job is open. A worker counts itself into `active` before it looks at the
//     epoch, and the caller closes the job before it waits for `active` to reach zero, so no worker can touch a job whose
//     caller has returned.
// Interface: threads.h.
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace llmos {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);  // longer than the gap between two kernels of a decode step

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

struct Pool {
  std::mutex callers;  // one job at a time
  std::mutex sleep;
  std::condition_variable wake;
  std::atomic<unsigned> epoch{0};
  std::atomic<int> active{0};
  std::atomic<int> sleepers{0};
  std::atomic<int> next{0};
  std::atomic<int> wanted{0};  // worker threads that should exist
  int started = 0;
  Task task = nullptr;
  void* context = nullptr;
  int n = 0;

  void claim() {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(context, i);
  }

  void worker(int id) {
    unsigned seen = 0;
    for (;;) {
      auto until = std::chrono::steady_clock::now() + kSpin;
      for (int spins = 0; epoch.load(std::memory_order_acquire) == seen; ++spins) {
        pause();
        if (spins % 64 == 63 && std::chrono::steady_clock::now() > until) {
          std::unique_lock<std::mutex> lock(sleep);
          sleepers.fetch_add(1);
          wake.wait(lock, [&] { return epoch.load() != seen; });
          sleepers.fetch_sub(1);
          break;
        }
      }
      active.fetch_add(1);
      unsigned now = epoch.load();
      if ((now & 1) && id < wanted.load(std::memory_order_relaxed)) claim();
      active.fetch_sub(1);
      seen = now;
    }
  }

  void run(int count, Task f, void* c) {
    while (started < wanted.load()) {
      std::thread(&Pool::worker, this, started).detach();
      ++started;
    }
    task = f;
    context = c;
    n = count;
    next.store(0, std::memory_order_relaxed);
    epoch.fetch_add(1);
    if (sleepers.load()) {
      { std::lock_guard<std::mutex> lock(sleep); }
      wake.notify_all();
    }
    claim();
    epoch.fetch_add(1);
    for (int spins = 0; active.load(); ++spins) {
      if (spins < 4096) pause();
      else sched_yield();
    }
  }
};

int default_threads() {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return n < 1 ? 1 : n > 64 ? 64 : n;
}

Pool* make_pool() {
  Pool* p = new Pool;  // never destroyed: detached workers outlive static destructors
  p->wanted = default_threads() - 1;
  return p;
}

Pool* pool_of_process = nullptr;

Pool& pool() {
  static bool made = [] {
    pool_of_process = make_pool();
    // A child of fork() has none of the parent's threads: it gets a pool of its own.
    pthread_atfork(nullptr, nullptr, [] {
      int wanted = pool_of_process->wanted;
      pool_of_process = make_pool();
      pool_of_process->wanted = wanted;
    });
    return true;
  }();
  (void)made;
  return *pool_of_process;
}

}  // namespace

void set_threads(int n) { pool().wanted = n < 1 ? 0 : n > 64 ? 63 : n - 1; }
int threads() { return pool().wanted + 1; }

void run_tasks(int n, Task task, void* context) {
  Pool& p = pool();
  if (n > 1 && p.wanted.load() > 0 && p.callers.try_lock()) {
    p.run(n, task, context);
    p.callers.unlock();
    return;
  }
  for (int i = 0; i < n; ++i) task(context, i);
}

}  // namespace llmos
