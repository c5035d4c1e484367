// What: a small pool of worker threads that splits one kernel call at a time.
// Invariant: which thread runs a task never changes a result (tasks write disjoint outputs); an idle worker spins for at
//     most a few tens of microseconds and then sleeps; a second caller meanwhile runs its tasks alone, on its own thread.
// Interface: parallel(n, f) runs f(0..n-1) and returns when all are done; set_threads(n), threads().
#pragma once

namespace llmos {

using Task = void (*)(void* context, int index);

void set_threads(int n);
int threads();
void run_tasks(int n, Task task, void* context);

// Always inlined, like every template here: a copy compiled for a newer instruction set must not be shared.
template <class F>
__attribute__((always_inline)) inline void parallel(int n, const F& f) {
  if (n == 1) {
    f(0);
    return;
  }
  run_tasks(n, [](void* context, int index) { (*static_cast<const F*>(context))(index); }, const_cast<F*>(&f));
}

}  // namespace llmos
