// What: rotary embedding, the write of K and V into the paged pool, and causal paged attention, for any mixture of
//     prefill and decode rows.
// Invariant (the row contract): a token's output depends on its query and its process's pages alone: positions are
//     taken in units of 64 and segments of 512, both aligned to absolute position; a score is a sequential fma over the
//     head's dimensions, the running maximum and sum are rescaled once a unit, values are added in the order of positions, and
//     segments, which different threads may compute, are joined in their order. K is rounded to the pool's type before
//     it is rotated and again after. Masked positions weigh exactly nothing; positions that no token of the process has
//     written are never read.
// Interface: attention (see kernels.h for shapes); the caller has checked every slot, position and page (ffi.cc).
#include "attend.h"
#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void attention(const AttentionArgs& a);

namespace {

constexpr int64_t kSegment = 512;  // positions that are summed on their own
constexpr int64_t kTileRows = 128; // query rows (tokens x heads of a group) that share one load of a unit

inline float round_to_pool(float f, bool half) { return half ? bf16_to_float(float_to_bf16(f)) : f; }

inline void write_pool(void* pool, int64_t at, const float* v, int64_t n, bool half) {
  if (!half) {
    memcpy(static_cast<float*>(pool) + at, v, static_cast<size_t>(n) * 4);
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(pool) + at;
  for (int64_t i = 0; i < n; ++i) p[i] = float_to_bf16(v[i]);
}

void head_norm(const float* x, const float* w, float eps, int64_t n, float* y) {
  F8 squares = zero();
  for (int64_t i = 0; i < n; i += 8) squares = fma(load(x + i), load(x + i), squares);
  float r = 1.0f / __builtin_sqrtf(sum_lanes(squares) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; i += 8) store(y + i, mul(mul(load(x + i), set1(r)), load(w + i)));
}

void rotate(float* x, const float* cos, const float* sin, int64_t half, bool interleaved) {
  const int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
  for (int64_t i = 0; i < half; ++i) {
    float *p = x + i * step, *q = p + other;
    float u = *p, v = *q;
    *p = u * cos[i] - v * sin[i];
    *q = v * cos[i] + u * sin[i];
  }
}

// Pool index of K of one position; V follows head_dim later.
inline int64_t place(const AttentionArgs& a, int64_t slot, int64_t position, int64_t kv) {
  int64_t page = a.table[slot * a.table_width + position / a.page];
  return (((page * a.page + position % a.page) * a.kv_heads) + kv) * 2 * a.head_dim;
}

// q := scale * rotate(norm(q)), K and V of one token to the pool.
void write_token(const AttentionArgs& a, int64_t t, float* q) {
  const int64_t h = a.head_dim, half = a.rope_dim / 2;
  const float* x = a.qkv + t * (a.heads + 2 * a.kv_heads) * h;
  const float *cos = a.cos + a.positions[t] * half, *sin = a.sin + a.positions[t] * half;
  for (int64_t n = 0; n < a.heads; ++n, x += h, q += h) {
    if (a.q_norm) head_norm(x, a.q_norm, a.eps, h, q);
    else memcpy(q, x, static_cast<size_t>(h) * 4);
    rotate(q, cos, sin, half, a.interleaved);
    for (int64_t i = 0; i < h; ++i) q[i] *= a.scale;
  }
  float k[1024];
  for (int64_t n = 0; n < a.kv_heads; ++n) {
    const float *xk = x + n * h, *xv = x + (a.kv_heads + n) * h;
    if (a.k_norm) head_norm(xk, a.k_norm, a.eps, h, k);
    else memcpy(k, xk, static_cast<size_t>(h) * 4);
    for (int64_t i = 0; i < h; ++i) k[i] = round_to_pool(k[i], a.half);
    rotate(k, cos, sin, half, a.interleaved);
    const int64_t at = place(a, a.slot[t], a.positions[t], n);
    write_pool(a.pool, at, k, h, a.half);
    write_pool(a.pool, at + h, xv, h, a.half);
  }
}

struct Tile {  // consecutive rows of one process
  int64_t begin, end, last;  // rows [begin, end), largest position
};

// What a tile's rows have seen so far of one kv head.
struct Partial {
  Running* state;  // [rows]
  float* acc;      // [rows][h]
};

int64_t rows_of(const AttentionArgs& a, const Tile& tile) { return (tile.end - tile.begin) * (a.heads / a.kv_heads); }

// The first position that any row of the tile may look at.
int64_t first_of(const AttentionArgs& a, const Tile& tile) {
  int64_t first = a.window > 0 ? tile.last : 0;
  for (int64_t t = tile.begin; a.window > 0 && t < tile.end; ++t) {
    const int64_t low = a.positions[t] - a.window + 1;
    if (low < first) first = low < 0 ? 0 : low;
  }
  return first;
}

void clear(const AttentionArgs& a, int64_t rows, const Partial& p) {
  for (int64_t r = 0; r < rows; ++r) p.state[r] = {kMasked, 0.0f};
  memset(p.acc, 0, static_cast<size_t>(rows * a.head_dim) * 4);
}

struct Workspace {
  float *kt, *v, *s;  // [h][64], [64][h], [rows][64]
  const float** row;  // [rows]
};

Workspace workspace(const AttentionArgs& a, int64_t rows, Scratch& scratch) {
  const int64_t unit = a.head_dim * kUnit;
  return {scratch.take<float>(unit), scratch.take<float>(unit), scratch.take<float>(rows * kUnit),
          scratch.take<const float*>(rows)};
}

// One segment's positions [first, last] for all rows of a tile and one kv head, into `out`, which is clear.
template <class T>
void attend(const AttentionArgs& a, const float* q, const Tile& tile, int64_t kv, int64_t first, int64_t last,
            const Workspace& work, const Partial& out) {
  const int64_t h = a.head_dim, group = a.heads / a.kv_heads, rows = rows_of(a, tile), slot = a.slot[tile.begin];
  const int64_t groups = (rows + kGroup - 1) / kGroup;  // as even as can be: a row alone takes as long as three
  const bool few = groups <= 2;  // so few that a copy of the unit in floats would not pay
  const float** row = work.row;
  for (int64_t r = 0; r < rows; ++r) row[r] = q + ((tile.begin + r / group) * a.heads + kv * group + r % group) * h;

  const T *at[kUnit], *soon[kUnit];
  for (int64_t base = first / kUnit * kUnit; base <= last; base += kUnit) {
    const int64_t n = last - base + 1 < kUnit ? last - base + 1 : kUnit, n16 = (n + 15) / 16 * 16;
    const int64_t from = first > base ? first - base : 0, from16 = from / 16 * 16;
    locate(a, slot, kv, base, from, n, at);
    const int64_t left = last - base - kUnit + 1;
    locate(a, slot, kv, base + kUnit, 0, left < kUnit ? left : kUnit, soon);
    for (int64_t j = 0; j < kUnit; ++j) soon[j] = soon[j] ? soon[j] : at[from];
    const int64_t stride = few ? 16 : kUnit;
    for (int64_t j = from16; j < n16; j += 16) {
      float* kt = few ? work.kt : work.kt + j;
      transpose16(at + j, soon + j, h, kt, stride);
      for (int64_t g = 0; few && g < groups; ++g) {
        const int64_t r = g * rows / groups;
        all_scores((g + 1) * rows / groups - r, row + r, kt, stride, h, work.s + r * kUnit + j);
      }
    }
    for (int64_t j = from; !few && j < n; ++j)
      for (int64_t c = 0; c < h; c += 8) store(work.v + j * h + c, widen(at[j] + h + c));

    for (int64_t g = 0; g < groups; ++g) {
      const int64_t r = g * rows / groups, m = (g + 1) * rows / groups - r;
      float* s = work.s + r * kUnit;
      for (int64_t j = from16; !few && j < n16; j += 16) all_scores(m, row + r, work.kt + j, stride, h, s + j);
      bool any = false;
      for (int64_t i = 0; i < m; ++i) {
        const int64_t position = a.positions[tile.begin + (r + i) / group];
        const int64_t low = a.window > 0 ? position - a.window + 1 - base : 0;
        float* si = s + i * kUnit;
        if (position < base || low >= kUnit) {  // nothing of this unit: leave the row as it is
          memset(si, 0, kUnit * 4);
          continue;
        }
        for (int64_t j = 0; j < from16; ++j) si[j] = 0.0f;
        for (int64_t j = n16; j < kUnit; ++j) si[j] = 0.0f;
        soften(a, low < 0 ? 0 : low, position - base, &out.state[r + i], si, out.acc + (r + i) * h);
        any = true;
      }
      if (!any) continue;
      float* acc = out.acc + r * h;
      if (few) {
        all_values(m, s, [&](int64_t j, int64_t c) {
          if (c % line<T> == 0) prefetch(soon[j] + h + c);
          return at[j] + h + c;
        }, h, from, n, acc);
      } else {
        all_values(m, s, [&](int64_t j, int64_t c) { return work.v + j * h + c; }, h, from, n, acc);
      }
    }
  }
}

// whole := whole and, after it, part. A row that has seen nothing in the segment stays as it is.
void join(const AttentionArgs& a, int64_t rows, const Partial& whole, const Partial& part) {
  for (int64_t r = 0; r < rows; ++r) {
    Running &w = whole.state[r], p = part.state[r];
    if (p.top == kMasked) continue;
    const float now = w.top > p.top ? w.top : p.top;
    float weight[8] = {w.top - now, p.top - now};  // the greater one becomes exactly 1
    store(weight, exp(load(weight)));
    float *x = whole.acc + r * a.head_dim, *y = part.acc + r * a.head_dim;
    for (int64_t i = 0; i < a.head_dim; i += 8)
      store(x + i, fma(load(y + i), set1(weight[1]), mul(load(x + i), set1(weight[0]))));
    w = {now, w.sum * weight[0] + p.sum * weight[1]};
  }
}

void finish(const AttentionArgs& a, const Tile& tile, int64_t kv, const Partial& whole) {
  const int64_t h = a.head_dim, group = a.heads / a.kv_heads, rows = rows_of(a, tile);
  for (int64_t r = 0; r < rows; ++r) {
    float* out = a.out + ((tile.begin + r / group) * a.heads + kv * group + r % group) * h;
    F8 sum = set1(whole.state[r].sum);
    for (int64_t i = 0; i < h; i += 8) store(out + i, div(load(whole.acc + r * h + i), sum));
  }
}

Partial take(const AttentionArgs& a, int64_t rows, Scratch& scratch) {
  return {scratch.take<Running>(rows), scratch.take<float>(rows * a.head_dim)};
}

struct Span {
  int64_t first, last;
};

// The positions of segment `i` that a tile looks at which looks at [first, last].
Span span_of(int64_t i, int64_t first, int64_t last) {
  const int64_t begin = i * kSegment, end = begin + kSegment - 1;
  return {begin > first ? begin : first, end < last ? end : last};
}

// A tile and kv head, its segments one after the other.
template <class T>
void attend_whole(const AttentionArgs& a, const float* q, const Tile& tile, int64_t kv) {
  const int64_t rows = rows_of(a, tile), first = first_of(a, tile), begin = first / kSegment;
  Scratch scratch(thread_arena(1));
  const Workspace work = workspace(a, rows, scratch);
  Partial whole = take(a, rows, scratch), part = take(a, rows, scratch);
  clear(a, rows, whole);
  for (int64_t i = begin; i <= tile.last / kSegment; ++i) {
    const Span span = span_of(i, first, tile.last);
    const Partial& into = i == begin ? whole : part;
    if (i > begin) clear(a, rows, part);
    attend<T>(a, q, tile, kv, span.first, span.last, work, into);
    if (i > begin) join(a, rows, whole, part);
  }
  finish(a, tile, kv, whole);
}

// Few tiles: threads share their segments, so that none waits for the longest.
template <class T>
void attend_split(const AttentionArgs& a, const float* q, const Tile* tiles, int64_t count, Scratch& scratch) {
  struct Piece {
    int64_t tile, segment;
  };
  int64_t n = 0, *from = scratch.take<int64_t>(count + 1), *first = scratch.take<int64_t>(count);
  for (int64_t i = 0; i < count; ++i) {
    first[i] = first_of(a, tiles[i]);
    from[i] = n;
    n += tiles[i].last / kSegment - first[i] / kSegment + 1;
  }
  from[count] = n;
  Piece* piece = scratch.take<Piece>(n);
  Partial* part = scratch.take<Partial>(n * a.kv_heads);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = from[i]; j < from[i + 1]; ++j) {
      piece[j] = {i, first[i] / kSegment + j - from[i]};
      for (int64_t kv = 0; kv < a.kv_heads; ++kv) part[j * a.kv_heads + kv] = take(a, rows_of(a, tiles[i]), scratch);
    }
  }
  parallel(static_cast<int>(n * a.kv_heads), [&](int i) {  // neighbours read the same pages
    const Piece& p = piece[i / a.kv_heads];
    const Tile& tile = tiles[p.tile];
    const Span span = span_of(p.segment, first[p.tile], tile.last);
    Scratch mine(thread_arena(1));
    const Workspace work = workspace(a, rows_of(a, tile), mine);
    clear(a, rows_of(a, tile), part[i]);
    attend<T>(a, q, tile, i % a.kv_heads, span.first, span.last, work, part[i]);
  });
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t kv = 0; kv < a.kv_heads; ++kv) {
      const Partial& whole = part[from[i] * a.kv_heads + kv];
      for (int64_t j = from[i] + 1; j < from[i + 1]; ++j)
        join(a, rows_of(a, tiles[i]), whole, part[j * a.kv_heads + kv]);
      finish(a, tiles[i], kv, whole);
    }
  }
}

template <class T>
void attend_all(const AttentionArgs& a, const float* q, const Tile* tiles, int64_t count, Scratch& scratch) {
  const int64_t tasks = count * a.kv_heads;
  if (threads() > 1 && tasks < 4 * threads()) return attend_split<T>(a, q, tiles, count, scratch);
  parallel(static_cast<int>(tasks), [&](int i) {  // later tiles are longer (causality), so they start first
    attend_whole<T>(a, q, tiles[count - 1 - i / a.kv_heads], i % a.kv_heads);
  });
}

}  // namespace

void attention(const AttentionArgs& a) {
  const int64_t h = a.head_dim, group = a.heads / a.kv_heads;
  Scratch scratch(thread_arena(0));
  float* q = scratch.take<float>(a.rows * a.heads * h);
  auto write = [&](int64_t t) { write_token(a, t, q + t * a.heads * h); };
  if (a.rows < 8) {
    for (int64_t t = 0; t < a.rows; ++t) write(t);
  } else {
    parallel(static_cast<int>((a.rows + 7) / 8), [&](int i) {
      for (int64_t t = 8 * i; t < a.rows && t < 8 * i + 8; ++t) write(t);
    });
  }

  Tile* tiles = scratch.take<Tile>(a.rows);
  int64_t count = 0, most = kTileRows / group < 1 ? 1 : kTileRows / group;
  for (int64_t t = 0; t < a.rows; ++t) {
    Tile* last = count ? &tiles[count - 1] : nullptr;
    if (last && a.slot[last->begin] == a.slot[t] && t - last->begin < most) {
      last->end = t + 1;
      if (a.positions[t] > last->last) last->last = a.positions[t];
    } else {
      tiles[count++] = {t, t + 1, a.positions[t]};
    }
  }
  if (a.half) attend_all<uint16_t>(a, q, tiles, count, scratch);
  else attend_all<float>(a, q, tiles, count, scratch);
}

}  // namespace LLMOS_ISA
}  // namespace llmos
