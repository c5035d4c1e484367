// What: memory for the length of one kernel call, kept by the thread for its next call.
// Invariant: nothing is allocated once a thread has seen its largest call; pointers are 64-byte aligned; an arena serves
//     one Scratch at a time (a kernel takes arena 0 on the calling thread and arena 1 inside its tasks, because the
//     calling thread runs tasks too).
// Interface: Scratch s(thread_arena(i)); s.take<T>(count).
#pragma once

#include <cstddef>
#include <cstdint>

namespace llmos {

struct Chunk;

struct Arena {
  Chunk* chunks = nullptr;
  ~Arena();
};

Arena& thread_arena(int which);

class Scratch {
 public:
  explicit Scratch(Arena& arena) : arena_(arena) {}
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  __attribute__((always_inline)) T* take(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  void* bytes(size_t n);
  Arena& arena_;
};

}  // namespace llmos
