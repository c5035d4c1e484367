// What: rotary embedding, the write of K and V into the paged pool, and causal paged attention, for any mixture of
//     prefill and decode rows.
// Invariant (the row contract): a token's output depends on its query and its process's pages alone: positions are taken
//     in units of 64 aligned to absolute position, a score is a sequential fma over the head's dimensions, the running
//     maximum and sum are rescaled once a unit, and values are added in the order of positions. K is rounded to the
//     pool's type before it is rotated and again after. Masked positions weigh exactly nothing; positions that no token
//     of the process has written are never read.
// Interface: attention (see kernels.h for shapes); the caller has checked every slot, position and page (ffi.cc).
#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void attention(const AttentionArgs& a);

namespace {

constexpr int64_t kUnit = 64;      // positions between two rescalings
constexpr int64_t kTileRows = 128; // query rows (tokens x heads of a group) that share one load of a unit
constexpr float kMasked = -__builtin_inff();

inline float round_to_pool(float f, bool half) { return half ? bf16_to_float(float_to_bf16(f)) : f; }

inline void write_pool(void* pool, int64_t at, const float* v, int64_t n, bool half) {
  if (!half) {
    memcpy(static_cast<float*>(pool) + at, v, static_cast<size_t>(n) * 4);
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(pool) + at;
  for (int64_t i = 0; i < n; ++i) p[i] = float_to_bf16(v[i]);
}

inline F8 widen(const float* p) { return load(p); }
inline F8 widen(const uint16_t* p) { return load_bf16(p); }

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

// s[r][0..16) = q[r] . K for 16 positions of a transposed unit.
template <int R>
inline void scores16(const float* const* q, const float* kt, int64_t h, float* s) {
  F8 acc[R][2];
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = zero();
  for (int64_t i = 0; i < h; ++i) {
    F8 k0 = load(kt + i * kUnit), k1 = load(kt + i * kUnit + 8);
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

// acc[r] += p[r] . V over n positions, C vectors of eight columns.
template <int R, int C>
inline void values(const float* p, const float* v, int64_t h, int64_t n, float* acc) {
  F8 y[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) y[r][c] = load(acc + r * h + 8 * c);
  for (int64_t j = 0; j < n; ++j) {
    F8 x[C];
    for (int c = 0; c < C; ++c) x[c] = load(v + j * h + 8 * c);
    for (int r = 0; r < R; ++r) {
      F8 w = set1(p[r * kUnit + j]);
      for (int c = 0; c < C; ++c) y[r][c] = fma(w, x[c], y[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(acc + r * h + 8 * c, y[r][c]);
}

constexpr int64_t kGroup = 6;  // rows at a time: 6 x 2 sums, 2 operands and a broadcast in sixteen registers

void all_scores(int64_t rows, const float* const* q, const float* kt, int64_t h, float* s) {
  switch (rows) {
    case 1: return scores16<1>(q, kt, h, s);
    case 2: return scores16<2>(q, kt, h, s);
    case 3: return scores16<3>(q, kt, h, s);
    case 4: return scores16<4>(q, kt, h, s);
    case 5: return scores16<5>(q, kt, h, s);
    default: return scores16<6>(q, kt, h, s);
  }
}

template <int R>
void values_of(const float* p, const float* v, int64_t h, int64_t n, float* acc) {
  int64_t c = 0;
  for (; c + 16 <= h; c += 16) values<R, 2>(p, v + c, h, n, acc + c);
  for (; c < h; c += 8) values<R, 1>(p, v + c, h, n, acc + c);
}

void all_values(int64_t rows, const float* p, const float* v, int64_t h, int64_t n, float* acc) {
  switch (rows) {
    case 1: return values_of<1>(p, v, h, n, acc);
    case 2: return values_of<2>(p, v, h, n, acc);
    case 3: return values_of<3>(p, v, h, n, acc);
    case 4: return values_of<4>(p, v, h, n, acc);
    case 5: return values_of<5>(p, v, h, n, acc);
    default: return values_of<6>(p, v, h, n, acc);
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

struct Tile {  // consecutive rows of one process
  int64_t begin, end, last;  // rows [begin, end), largest position
};

// Positions base + [from, to) of one kv head as floats: K transposed to kt[h][64], V to v[64][h]. What lies between them
// and the next multiple of 16 is zero, so that no vector operation meets an unwritten number.
template <class T>
void load_unit(const AttentionArgs& a, int64_t slot, int64_t kv, int64_t base, int64_t from, int64_t to, float* kt,
               float* v) {
  const int64_t h = a.head_dim, step = a.kv_heads * 2 * h;
  const T* pool = static_cast<const T*>(a.pool) + kv * 2 * h;
  const int32_t* table = a.table + slot * a.table_width;
  int64_t page = (base + from) / a.page, place = (base + from) % a.page;
  for (int64_t j = from / 16 * 16; j < to; j += 8) {
    const T* at[8];
    for (int64_t i = 0; i < 8; ++i) {
      at[i] = nullptr;
      if (j + i < from || j + i >= to) continue;
      at[i] = pool + (table[page] * a.page + place) * step;
      if (++place == a.page) {
        place = 0;
        ++page;
      }
    }
    const bool all = at[0] && at[7];
    for (int64_t c = 0; c < h; c += 8) {
      F8 k[8];
      if (all) {
        for (int i = 0; i < 8; ++i) {
          k[i] = widen(at[i] + c);
          store(v + (j + i) * h + c, widen(at[i] + h + c));
        }
      } else {
        for (int i = 0; i < 8; ++i) {
          k[i] = at[i] ? widen(at[i] + c) : zero();
          store(v + (j + i) * h + c, at[i] ? widen(at[i] + h + c) : zero());
        }
      }
      transpose8(k, kt + c * kUnit + j, kUnit);
    }
  }
  const int64_t tail = (to + 7) / 8 * 8;  // a last half of 16 that holds nothing
  if (tail % 16)
    for (int64_t c = 0; c < h; ++c) store(kt + c * kUnit + tail, zero());
}

void attend(const AttentionArgs& a, const float* q, const Tile& tile, int64_t kv) {
  const int64_t h = a.head_dim, group = a.heads / a.kv_heads, rows = (tile.end - tile.begin) * group;
  const int64_t slot = a.slot[tile.begin];
  Scratch scratch(thread_arena(1));
  float* kt = scratch.take<float>(h * kUnit);      // [h][64]
  float* v = scratch.take<float>(h * kUnit);       // [64][h]
  float* s = scratch.take<float>(rows * kUnit);    // [rows][64]
  float* acc = scratch.take<float>(rows * h);      // [rows][h]
  Running* state = scratch.take<Running>(rows);
  const float** row = scratch.take<const float*>(rows);
  int64_t first = tile.last;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = tile.begin + r / group;
    row[r] = q + (t * a.heads + kv * group + r % group) * h;
    state[r] = {kMasked, 0.0f};
    const int64_t low = a.window > 0 ? a.positions[t] - a.window + 1 : 0;
    if (low < first) first = low < 0 ? 0 : low;
  }
  memset(acc, 0, static_cast<size_t>(rows * h) * 4);

  for (int64_t base = first / kUnit * kUnit; base <= tile.last; base += kUnit) {
    const int64_t n = tile.last - base + 1 < kUnit ? tile.last - base + 1 : kUnit, n16 = (n + 15) / 16 * 16;
    const int64_t from = first > base ? first - base : 0, from16 = from / 16 * 16;
    if (a.half) load_unit<uint16_t>(a, slot, kv, base, from, n, kt, v);
    else load_unit<float>(a, slot, kv, base, from, n, kt, v);
    for (int64_t r = 0; r < rows; r += kGroup) {
      const int64_t m = rows - r < kGroup ? rows - r : kGroup;
      float* sr = s + r * kUnit;
      for (int64_t j = from16; j < n16; j += 16) all_scores(m, row + r, kt + j, h, sr + j);
      bool any = false;
      for (int64_t i = 0; i < m; ++i) {
        const int64_t position = a.positions[tile.begin + (r + i) / group];
        const int64_t low = a.window > 0 ? position - a.window + 1 - base : 0;
        float* si = sr + i * kUnit;
        if (position < base || low >= kUnit) {  // nothing of this unit: leave the row as it is
          memset(si, 0, kUnit * 4);
          continue;
        }
        for (int64_t j = 0; j < from16; ++j) si[j] = 0.0f;
        for (int64_t j = n16; j < kUnit; ++j) si[j] = 0.0f;
        soften(a, low < 0 ? 0 : low, position - base, &state[r + i], si, acc + (r + i) * h);
        any = true;
      }
      if (any) all_values(m, sr + from16, v + from16 * h, h, n - from16, acc + r * h);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* out = a.out + ((tile.begin + r / group) * a.heads + kv * group + r % group) * h;
    F8 sum = set1(state[r].sum);
    for (int64_t i = 0; i < h; i += 8) store(out + i, div(load(acc + r * h + i), sum));
  }
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
  // Later tiles are longer (causality), so they start first.
  parallel(static_cast<int>(count * a.kv_heads), [&](int i) {
    attend(a, q, tiles[count - 1 - i / a.kv_heads], i % a.kv_heads);
  });
}

}  // namespace LLMOS_ISA
}  // namespace llmos
