// What: products of quantised weights with more rows than few.h takes: a block of two tiles is widened to bytes in L1 and met
//     there by one panel of four rows after another, while the next blocks come from memory: eight integer sums live in
//     registers, the float sums in L1.
// Invariant: the row contract (linear.cc). Integer sums are exact in whatever order, so only the order of the float terms
//     counts: it is that of few.h.
// Interface: tiles_many; kAtOnce, room_bytes.
#pragma once

#include "activations.h"
#include "codes.h"

namespace llmos {
namespace LLMOS_ISA {

// Where signed bytes have no instruction of their own they are two nibbles, w = 16 (high - 8) + low.
constexpr int64_t widened_codes(int f) { return f == kQ8 && kSplitBytes ? 512 : 256; }
constexpr int64_t widened_bytes(int f) { return widened_codes(f) + 96; }
constexpr int64_t kWidened = widened_bytes(kQ8);  // the most of any format
constexpr int64_t kAtOnce = 64;                   // rows that meet a widened block

// Block b of a tile: the codes, then scales, then the second scales or minima, then, if wanted, the weights' sums.
template <int F>
LLMOS_INLINE void widen(const uint8_t* w, int64_t b, bool centred, uint8_t* out) {
  const Narrow p{place(F, w, b)};
  B32 u[8];
  F8 scale[2], minimum = zero();
  p.prefetch_ahead(2048);
  unpack<F>(p, u);
  load_scales<F>(p, scale, &minimum);
  float* f = reinterpret_cast<float*>(out + widened_codes(F));
  store(f, scale[0]);
  store(f + 8, F == kQ6 ? scale[1] : minimum);
  if (centred) store(f + 16, weight_sums<F, Narrow>(u, scale));
  for (int j = 0; j < 8; ++j) {
    if constexpr (F == kQ8) u[j] = flip_sign(u[j]);  // 0 to 255
    if constexpr (F == kQ8 && kSplitBytes) {
      store_bytes(out + 32 * j, mask_bytes(shift_right<4>(u[j]), 15));
      store_bytes(out + 256 + 32 * j, mask_bytes(u[j], 15));
    } else {
      store_bytes(out + 32 * j, u[j]);
    }
  }
}

// Integer sums of k-groups [from, to) of one block against C sets of codes, `stride` apart.
template <int R, int C>
LLMOS_INLINE void sums(const uint8_t* w, int64_t stride, const Panel& x, int from, int to, Acc acc[R][C]) {
LLMOS_UNROLL
  for (int j = from; j < to; ++j) {
    B32 u[C];
    for (int c = 0; c < C; ++c) u[c] = load_bytes(w + c * stride + 32 * j);
LLMOS_UNROLL
    for (int r = 0; r < R; ++r) {
      B32 q = repeat4(x.q[j][r]);
      for (int c = 0; c < C; ++c) acc[r][c] = acc_dot(acc[r][c], u[c], q);
    }
  }
}

// y[R][C * 8] += the terms of one block of C tiles, in the order of the row contract.
template <int F, int R, int C>
LLMOS_INLINE void block_many(const uint8_t* w, const Panel& x, float* y) {
  constexpr int64_t stride = widened_bytes(F);
  const auto floats = [&](int c, int which) {
    return load(reinterpret_cast<const float*>(w + c * stride + widened_codes(F)) + 8 * which);
  };
  const auto add_term = [&](int r, int c, F8 dot, F8 scale) {
    float* to = y + (r * C + c) * 8;
    store(to, fma(dot, mul(scale, set1(x.scale[r])), load(to)));
    keep_order();
  };
  if constexpr (F == kQ8 && kSplitBytes) {
    for (int c = 0; c < C; ++c) {
      Acc acc[R][2];
      for (int r = 0; r < R; ++r) {
        acc[r][0] = acc_start(repeat4(x.offset8[r]));
        acc[r][1] = acc_zero();
      }
      sums<R, 2>(w + c * stride, 256, x, 0, 8, acc);
      const F8 scale = floats(c, 0);
      for (int r = 0; r < R; ++r) add_term(r, c, acc_sum_nibbles(acc[r][0], acc[r][1]), scale);
    }
  } else if constexpr (F == kQ6) {
    for (int half = 0; half < 2; ++half) {
      Acc acc[R][C];
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) acc[r][c] = acc_start(repeat4(x.offset32[half][r]));
      sums<R, C>(w, stride, x, 4 * half, 4 * half + 4, acc);
      for (int c = 0; c < C; ++c) {
        const F8 scale = floats(c, half);
        for (int r = 0; r < R; ++r) add_term(r, c, acc_sum(acc[r][c]), scale);
      }
    }
  } else {
    Acc acc[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        acc[r][c] = F == kQ8        ? acc_offset(repeat4(x.offset8[r]), -16)
                  : bits(F) == 5    ? acc_start(repeat4(x.offset16[r]))
                  : has_minimum(F) ? acc_zero()
                                    : acc_start(repeat4(x.offset8[r]));
    sums<R, C>(w, stride, x, 0, 8, acc);
    for (int c = 0; c < C; ++c) {
      const F8 scale = floats(c, 0), minimum = floats(c, 1);
      for (int r = 0; r < R; ++r) {
        F8 dot = acc_sum(acc[r][c]);
        // Five-bit codes need an offset to stay in 16 bits; where the format has a minimum it is given back here.
        if constexpr (bits(F) == 5 && has_minimum(F)) dot = sub(dot, set1(static_cast<float>(x.offset16[r][0] + x.offset16[r][1])));
        if constexpr (has_minimum(F)) {
          float* to = y + (r * C + c) * 8;
          store(to, fma(minimum, set1(x.sum[r]), fma(dot, mul(scale, set1(x.scale[r])), load(to))));
          keep_order();
        } else {
          add_term(r, c, dot, scale);
        }
      }
    }
  }
}

// y[R][C * 8] += the terms of the centres; `totals` are the weights' sums, [blocks][C * 8].
template <int R, int C>
void centre_many(const float* totals, int64_t blocks, const Panel* x, int64_t stride, float* y) {
  F8 z[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) z[r][c] = zero();
  for (int64_t b = 0; b < blocks; ++b, totals += C * 8, x += stride) {
    F8 total[C];
    for (int c = 0; c < C; ++c) total[c] = load(totals + 8 * c);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) z[r][c] = fma(total[c], set1(x->centre[r]), z[r][c]);
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(y + (r * C + c) * 8, add(load(y + (r * C + c) * 8), z[r][c]));
}

// What tiles_many needs to work in: a widened block of each tile, and the weights' sums.
constexpr int64_t room_bytes(int64_t blocks) { return 2 * kWidened + blocks * 2 * 32; }

// y[rows][C * 8]: C tiles against `rows` rows in panels, x[blocks][panels].
template <int F, int C>
void tiles_many(const uint8_t* const* w, int64_t blocks, bool centred, const Panel* x, int64_t rows, float* y,
                uint8_t* room) {
  constexpr int64_t width = widened_bytes(F), size = kPanelRows * C * 8;
  const int64_t whole = rows / kPanelRows, rest = rows % kPanelRows, panels = whole + (rest > 0);
  float* const totals = reinterpret_cast<float*>(room + 2 * kWidened);
  for (int64_t i = 0; i < rows * C; ++i) {
    store(y + 8 * i, zero());
    keep_order();  // else a call of memset, slower than eight stores
  }
  const Panel* panel = x;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int c = 0; c < C; ++c) {
      widen<F>(w[c], b, centred, room + c * width);
      if (centred) memcpy(totals + (b * C + c) * 8, room + c * width + widened_codes(F) + 64, 32);
    }
    float* to = y;
    for (int64_t p = 0; p < whole; ++p, to += size) block_many<F, 4, C>(room, *panel++, to);
    switch (rest) {
      case 1: block_many<F, 1, C>(room, *panel++, to); break;
      case 2: block_many<F, 2, C>(room, *panel++, to); break;
      case 3: block_many<F, 3, C>(room, *panel++, to); break;
    }
  }
  if (!centred) return;
  for (int64_t p = 0; p < whole; ++p, ++x, y += size) centre_many<4, C>(totals, blocks, x, panels, y);
  switch (rest) {
    case 1: centre_many<1, C>(totals, blocks, x, panels, y); break;
    case 2: centre_many<2, C>(totals, blocks, x, panels, y); break;
    case 3: centre_many<3, C>(totals, blocks, x, panels, y); break;
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
