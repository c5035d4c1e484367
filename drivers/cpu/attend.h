// What: one unit of paged attention: where its keys and values lie, scores against the keys, their softmax, sums of the
//     values, for up to six query rows at a time.
// Invariant: part of the row contract of attention.cc: what is computed for a row does not depend on the rows beside it.
// Interface: locate, transpose16, all_scores, soften, all_values; included by attention.cc alone.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {
namespace {

constexpr int64_t kUnit = 64;      // positions between two rescalings
constexpr float kMasked = -__builtin_inff();

inline F8 widen(const float* p) { return load(p); }
inline F8 widen(const uint16_t* p) { return load_bf16(p); }

// s[r][0..16) = q[r] . K for 16 positions, transposed: kt[h][stride].
template <int R>
inline void scores16(const float* const* q, const float* kt, int64_t stride, int64_t h, float* s) {
  F8 acc[R][2];
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = zero();
  for (int64_t i = 0; i < h; ++i) {
    F8 k0 = load(kt + i * stride), k1 = load(kt + i * stride + 8);
    for (int r = 0; r < R; ++r) {
      F8 x = set1(q[r][i]);
      acc[r][0] = fma(x, k0, acc[r][0]);
      acc[r][1] = fma(x, k1, acc[r][1]);
    }
  }
  for (int r = 0; r < R; ++r) {
    store(s + r * kUnit, acc[r][0]);
    store(s + r * kUnit + 8, acc[r][1]);
  }
}

// acc[r] += p[r] . V over positions [from, to), C vectors of eight columns; `v(j, c)` is where a position's V lies.
template <int R, int C, class V>
inline void values(const float* p, const V& v, int64_t c0, int64_t h, int64_t from, int64_t to, float* acc) {
  F8 y[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) y[r][c] = load(acc + r * h + c0 + 8 * c);
  for (int64_t j = from; j < to; ++j) {
    F8 x[C];
    const auto* at = v(j, c0);
    for (int c = 0; c < C; ++c) x[c] = widen(at + 8 * c);
    for (int r = 0; r < R; ++r) {
      F8 w = set1(p[r * kUnit + j]);
      for (int c = 0; c < C; ++c) y[r][c] = fma(w, x[c], y[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(acc + r * h + c0 + 8 * c, y[r][c]);
}

constexpr int64_t kGroup = 6;  // rows at a time, at most: 6 x 2 sums, 2 operands and a broadcast in sixteen registers

inline void all_scores(int64_t rows, const float* const* q, const float* kt, int64_t stride, int64_t h, float* s) {
  switch (rows) {
    case 1: return scores16<1>(q, kt, stride, h, s);
    case 2: return scores16<2>(q, kt, stride, h, s);
    case 3: return scores16<3>(q, kt, stride, h, s);
    case 4: return scores16<4>(q, kt, stride, h, s);
    case 5: return scores16<5>(q, kt, stride, h, s);
    default: return scores16<6>(q, kt, stride, h, s);
  }
}

template <int R, class V>
void values_of(const float* p, const V& v, int64_t h, int64_t from, int64_t to, float* acc) {
  constexpr int kWide = R <= 3 ? 4 : 2;  // sums enough to keep both multipliers busy
  int64_t c = 0;
  for (; c + 8 * kWide <= h; c += 8 * kWide) values<R, kWide>(p, v, c, h, from, to, acc);
  for (; c < h; c += 8) values<R, 1>(p, v, c, h, from, to, acc);
}

template <class V>
void all_values(int64_t rows, const float* p, const V& v, int64_t h, int64_t from, int64_t to, float* acc) {
  switch (rows) {
    case 1: return values_of<1>(p, v, h, from, to, acc);
    case 2: return values_of<2>(p, v, h, from, to, acc);
    case 3: return values_of<3>(p, v, h, from, to, acc);
    case 4: return values_of<4>(p, v, h, from, to, acc);
    case 5: return values_of<5>(p, v, h, from, to, acc);
    default: return values_of<6>(p, v, h, from, to, acc);
  }
}

struct Running {  // of one query row
  float top, sum;
};

// One unit's weights: s[0..64) to p in place; acc is rescaled. Positions outside [low, high] of the unit are masked.
inline void soften(const AttentionArgs& a, int64_t low, int64_t high, Running* state, float* s, float* acc) {
  alignas(32) static const float lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  F8 x[8], top = set1(kMasked);
  for (int i = 0; i < 8; ++i) x[i] = load(s + 8 * i);
  if (a.softcap > 0.0f) {  // cap * tanh(v / cap), tanh(z) = 1 - 2 / (1 + e^2z)
    for (int i = 0; i < 8; ++i) {
      F8 e = exp(mul(x[i], set1(2.0f / a.softcap)));
      x[i] = mul(set1(a.softcap), sub(set1(1.0f), div(set1(2.0f), add(e, set1(1.0f)))));
    }
  }
  if (low > 0 || high < kUnit - 1) {
    for (int i = 0; i < 8; ++i) {
      F8 j = add(load(lane), set1(static_cast<float>(8 * i)));
      x[i] = select_less(set1(static_cast<float>(high)), j, set1(kMasked), x[i]);
      x[i] = select_less(j, set1(static_cast<float>(low)), set1(kMasked), x[i]);
    }
  }
  for (int i = 0; i < 8; ++i) top = max(x[i], top);
  const float before = state->top, unit_top = max_lanes(top), now = before > unit_top ? before : unit_top;
  F8 total = zero();
  for (int i = 0; i < 8; ++i) {
    F8 p = exp(sub(x[i], set1(now)));  // 0 where masked
    store(s + 8 * i, p);
    total = add(total, p);
  }
  float rescale = 1.0f;
  if (now != before) {
    float lanes[8];
    store(lanes, exp(set1(before - now)));  // 0 in the first unit
    rescale = lanes[0];
    for (int64_t i = 0; i < a.head_dim; i += 8) store(acc + i, mul(load(acc + i), set1(rescale)));
  }
  state->top = now;
  state->sum = state->sum * rescale + sum_lanes(total);
}

// Where K of positions base + [from, to) of one kv head lies in the pool, V follows head_dim later; null for the rest
// of the unit.
template <class T>
void locate(const AttentionArgs& a, int64_t slot, int64_t kv, int64_t base, int64_t from, int64_t to, const T** at) {
  const int64_t step = a.kv_heads * 2 * a.head_dim;
  const T* pool = static_cast<const T*>(a.pool) + kv * 2 * a.head_dim;
  const int32_t* table = a.table + slot * a.table_width;
  int64_t page = (base + from) / a.page, place = (base + from) % a.page;
  for (int64_t j = 0; j < kUnit; ++j) {
    at[j] = nullptr;
    if (j < from || j >= to) continue;
    at[j] = pool + (table[page] * a.page + place) * step;
    if (++place == a.page) {
      place = 0;
      ++page;
    }
  }
}

// K of 16 positions as floats, transposed to kt[h][stride]; zero where there is none, so that no vector operation meets
// an unwritten number. K of `soon`, the same positions of the next unit, is asked for meanwhile, a few lines at a time:
// pages lie anywhere, so the machine cannot guess where it goes on.
template <class T>
constexpr int64_t line = 64 / sizeof(T);  // numbers in a cache line

template <class T>
void transpose16(const T* const* at, const T* const* soon, int64_t h, float* kt, int64_t stride) {
  for (int64_t j = 0; j < 16; j += 8) {
    const bool all = at[j] && at[j + 7];  // what is there is there without a gap
    for (int64_t c = 0; c < h; c += 8) {
      F8 k[8];
      for (int i = 0; i < 8; ++i) k[i] = all || at[j + i] ? widen(at[j + i] + c) : zero();
      for (int i = 0; c % line<T> == 0 && i < 8; ++i) prefetch(soon[j + i] + c);
      transpose8(k, kt + c * stride + j, stride);
    }
  }
}

}  // namespace
}  // namespace LLMOS_ISA
}  // namespace llmos
