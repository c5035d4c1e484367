// What: the arenas behind scratch.h, each a chain of chunks of which the first is in use.
// Invariant: when a call needed more than one chunk, they are merged into one of their total size at its end.
// Interface: scratch.h.
#include "scratch.h"

#include <cstdlib>
#include <new>

namespace llmos {

struct Chunk {
  Chunk* next;
  size_t size, used;
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this) + 64; }
};

namespace {

Chunk* make_chunk(size_t size, Chunk* next) {
  size = (size + 4095) & ~size_t{4095};
  void* p = std::aligned_alloc(64, size + 64);
  if (!p) throw std::bad_alloc();
  return new (p) Chunk{next, size, 0};
}

void free_chunks(Chunk* c) {
  while (c) {
    Chunk* next = c->next;
    std::free(c);
    c = next;
  }
}

}  // namespace

Arena::~Arena() { free_chunks(chunks); }

Arena& thread_arena(int which) {
  thread_local Arena arenas[2];
  return arenas[which];
}

void* Scratch::bytes(size_t n) {
  n = (n + 63) & ~size_t{63};
  Chunk* c = arena_.chunks;
  if (!c || c->used + n > c->size) {
    size_t size = n > 65536 ? n : 65536;
    arena_.chunks = c = make_chunk(size, c);
  }
  void* p = c->data() + c->used;
  c->used += n;
  return p;
}

Scratch::~Scratch() {
  Chunk* c = arena_.chunks;
  if (!c) return;
  if (c->next) {
    size_t total = 0;
    for (Chunk* i = c; i; i = i->next) total += i->size;
    free_chunks(c);
    arena_.chunks = nullptr;
    try {
      arena_.chunks = make_chunk(total, nullptr);
    } catch (const std::bad_alloc&) {  // the next call starts from nothing and may fail there
    }
    return;
  }
  c->used = 0;
}

}  // namespace llmos
