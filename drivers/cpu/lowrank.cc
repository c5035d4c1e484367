// What: what adapters add to a product: y = (norm(x) Aᵀ) B, with A and B of the adapter of each row.
// Invariant (the row contract): u = one sum in eight lanes over the inputs in order, y = fma over the ranks in order, for
//     every row count, panel and thread split. Where a row has no adapter, or its adapter does not change this matrix, y is
//     -0, which added to anything leaves every bit of it.
// Interface: low_rank (see kernels.h for shapes).
#include "epilogue.h"
#include "kernels.h"
#include "norm.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void low_rank(const LowRankArgs& a);

namespace {

constexpr int64_t kPanel = 4;      // rows of one adapter that share what is read of it
constexpr int64_t kRanks = 4;      // sums under way at once
constexpr int64_t kColumns = 512;  // outputs of one task

struct Panel4 {  // neighbouring rows of one adapter
  int64_t row, live;
  int32_t slot;
};

template <bool Half>
LLMOS_INLINE F8 weight(const void* p, int64_t i) {
  if constexpr (Half) return load_bf16(static_cast<const uint16_t*>(p) + i);
  else return load(static_cast<const float*>(p) + i);
}

template <bool Half>
LLMOS_INLINE float weight_at(const void* p, int64_t i) {
  if constexpr (Half) return bf16_to_float(static_cast<const uint16_t*>(p)[i]);
  else return static_cast<const float*>(p)[i];
}

// Up to eight numbers from p[i] on.
template <bool Half>
LLMOS_INLINE F8 weight_some(const void* p, int64_t i, int64_t n) {
  if (n == 8) return weight<Half>(p, i);
  float t[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int64_t j = 0; j < n; ++j) t[j] = weight_at<Half>(p, i + j);
  return load(t);
}

// u[r * stride + q] = x row r times row q of A, which begins at `at`.
template <bool Half, int R, int Q>
void dots(const float* x, int64_t k, const void* w, int64_t at, float* u, int64_t stride) {
  F8 sum[R][Q];
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < Q; ++q) sum[r][q] = zero();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    F8 v[R];
    for (int r = 0; r < R; ++r) v[r] = load(x + r * k + i);
    for (int q = 0; q < Q; ++q) {
      const F8 row = weight<Half>(w, at + q * k + i);
      for (int r = 0; r < R; ++r) sum[r][q] = fma(v[r], row, sum[r][q]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int q = 0; q < Q; ++q) {
      float total = sum_lanes(sum[r][q]);
      for (int64_t j = i; j < k; ++j) total += x[r * k + j] * weight_at<Half>(w, at + q * k + j);
      u[r * stride + q] = total;
    }
}

template <bool Half, int R>
void project(const float* x, int64_t k, const void* w, int64_t at, int64_t ranks, float* u, int64_t stride) {
  constexpr int Q = R > 2 ? 2 : kRanks;  // what registers hold
  int64_t q = 0;
  for (; q + Q <= ranks; q += Q) dots<Half, R, Q>(x, k, w, at + q * k, u + q, stride);
  for (; q < ranks; ++q) dots<Half, R, 1>(x, k, w, at + q * k, u + q, stride);
}

// y[r * ys + c] for the columns [from, to) of B, whose rows are n apart.
template <bool Half, int R>
void expand(const float* u, int64_t stride, int64_t ranks, const void* w, int64_t at, int64_t n, int64_t from, int64_t to,
            float* y, int64_t ys) {
  for (int64_t c = from; c < to; c += 16) {
    const int64_t left = to - c, first = left < 8 ? left : 8, second = left < 8 ? 0 : left < 16 ? left - 8 : 8;
    F8 sum[R][2];
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = set1(-0.0f);
    for (int64_t q = 0; q < ranks; ++q) {
      const F8 b0 = weight_some<Half>(w, at + q * n + c, first);
      const F8 b1 = weight_some<Half>(w, at + q * n + c + first, second);
      for (int r = 0; r < R; ++r) {
        const F8 v = set1(u[r * stride + q]);
        sum[r][0] = fma(v, b0, sum[r][0]);
        sum[r][1] = fma(v, b1, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      store_some(y + r * ys + c, sum[r][0], first);
      if (second) store_some(y + r * ys + c + 8, sum[r][1], second);
    }
  }
}

template <bool Half>
void project(int64_t live, const float* x, int64_t k, const void* w, int64_t at, int64_t ranks, float* u, int64_t stride) {
  switch (live) {
    case 1: return project<Half, 1>(x, k, w, at, ranks, u, stride);
    case 2: return project<Half, 2>(x, k, w, at, ranks, u, stride);
    case 3: return project<Half, 3>(x, k, w, at, ranks, u, stride);
    case 4: return project<Half, 4>(x, k, w, at, ranks, u, stride);
  }
}

template <bool Half>
void expand(int64_t live, const float* u, int64_t stride, int64_t ranks, const void* w, int64_t at, int64_t n,
            int64_t from, int64_t to, float* y, int64_t ys) {
  switch (live) {
    case 1: return expand<Half, 1>(u, stride, ranks, w, at, n, from, to, y, ys);
    case 2: return expand<Half, 2>(u, stride, ranks, w, at, n, from, to, y, ys);
    case 3: return expand<Half, 3>(u, stride, ranks, w, at, n, from, to, y, ys);
    case 4: return expand<Half, 4>(u, stride, ranks, w, at, n, from, to, y, ys);
  }
}

// Tasks [0, n), which are about `work` multiplications in all, split among threads where that is worth it.
template <class F>
void split(int64_t n, int64_t work, const F& f) {
  int64_t tasks = work / 262144 + 1;  // some 20 us each: below that, waiting for the other threads costs more
  if (tasks > 4 * threads()) tasks = 4 * threads();
  if (tasks > n) tasks = n;
  if (threads() == 1 || tasks < 1) tasks = 1;
  parallel(static_cast<int>(tasks), [&](int task) {
    for (int64_t i = n * task / tasks; i < n * (task + 1) / tasks; ++i) f(i);
  });
}

template <bool Half>
void run(const LowRankArgs& a) {
  Scratch scratch(thread_arena(0));
  Panel4* panels = scratch.take<Panel4>(a.rows);
  int64_t count = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    Panel4* last = count ? panels + count - 1 : nullptr;
    if (last && last->slot == a.slot[r] && last->live < kPanel) ++last->live;
    else panels[count++] = {r, 1, a.slot[r]};
  }
  float* normed = a.norm ? scratch.take<float>(a.rows * a.k) : nullptr;
  const float* x = a.norm ? normed : a.x;
  const int64_t stride = a.segments * a.rank;
  float* u = scratch.take<float>(a.rows * stride);
  split(count, a.rows * (stride + 4) * a.k, [&](int64_t i) {
    const Panel4& p = panels[i];
    const int32_t* ranks = a.ranks + p.slot * a.segments;
    int32_t most = 0;
    for (int s = 0; s < a.segments; ++s) most = ranks[s] > most ? ranks[s] : most;
    if (!most) return;
    if (a.norm)
      for (int64_t r = p.row; r < p.row + p.live; ++r) normalise(a.x + r * a.k, a.norm, a.eps, a.k, normed + r * a.k);
    for (int s = 0; s < a.segments; ++s)
      project<Half>(p.live, x + p.row * a.k, a.k, a.a, (p.slot * a.segments + s) * a.rank * a.k, ranks[s],
                    u + p.row * stride + s * a.rank, stride);
  });
  int64_t pieces = 0;  // of columns, in all matrices
  for (int s = 0; s < a.segments; ++s) pieces += (a.width[s] + kColumns - 1) / kColumns;
  split(count * pieces, a.rows * a.n * (a.rank + 1), [&](int64_t i) {
    const Panel4& p = panels[i / pieces];
    int64_t piece = i % pieces, column = 0;
    int s = 0;
    for (; piece >= (a.width[s] + kColumns - 1) / kColumns; column += a.width[s++])
      piece -= (a.width[s] + kColumns - 1) / kColumns;
    const int64_t from = piece * kColumns, n = a.width[s], to = from + kColumns < n ? from + kColumns : n;
    expand<Half>(p.live, u + p.row * stride + s * a.rank, stride, a.ranks[p.slot * a.segments + s], a.b[s],
                 p.slot * a.rank * n, n, from, to, a.y + p.row * a.n + column, a.n);
  });
}

}  // namespace

void low_rank(const LowRankArgs& a) { a.half ? run<true>(a) : run<false>(a); }

}  // namespace LLMOS_ISA
}  // namespace llmos
