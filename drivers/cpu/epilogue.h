// What: what happens to a product on its way out: what adapters add, bias, activation and gate, residual.
// Invariant: elementwise, in one order; nothing past the matrix's last output is written.
// Interface: finish, finish_gated.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

inline F8 load_some(const float* p, int64_t n) {
  if (n == 8) return load(p);
  float t[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return load(t);
}

inline void store_some(float* p, F8 v, int64_t n) {
  if (n == 8) return store(p, v);
  float t[8];
  store(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}

inline F8 silu(F8 g) { return div(g, add(set1(1.0f), exp(sub(zero(), g)))); }

// 0.5 g (1 + tanh z) = g / (1 + exp(-2 z)), z = sqrt(2/pi) (g + 0.044715 g^3)
inline F8 gelu_tanh(F8 g) {
  F8 z = mul(g, fma(mul(g, g), set1(0.044715f), set1(1.0f)));
  return div(g, add(set1(1.0f), exp(mul(z, set1(-1.5957691216057308f)))));
}

// The raw outputs of one or two tiles and of rows [row, row + rows), raw[r * stride .. + stride], to the columns from c on
// that lie before `end`.
inline void finish(const LinearArgs& a, int64_t row, int64_t rows, const float* raw, int64_t stride, int64_t c,
                   int64_t end) {
  for (int64_t i = 0; i < stride && c < end; i += 8, c += 8) {
    const int64_t n = end - c < 8 ? end - c : 8;
    const F8 bias = a.bias ? load_some(a.bias + c, n) : zero();
    for (int64_t r = 0; r < rows; ++r) {
      F8 y = load(raw + r * stride + i);
      if (a.delta) y = add(y, load_some(a.delta + (row + r) * a.n + c, n));
      if (a.bias) y = add(y, bias);
      if (a.residual) y = add(load_some(a.residual + (row + r) * a.n + c, n), y);
      store_some(a.y + (row + r) * a.n + c, y, n);
    }
  }
}

// R rows at once: one row's exponential is a long chain of operations that leaves the processor idle.
template <int R>
inline void gate_rows(const LinearArgs& a, int64_t row, const float* gate, const float* up, int64_t stride, int64_t c) {
  const int64_t n = a.n - c < 8 ? a.n - c : 8;
  const F8 gate_bias = a.bias ? load_some(a.bias + c, n) : zero();
  const F8 up_bias = a.bias ? load_some(a.bias + a.n + c, n) : zero();
  F8 g[R], u[R];
  for (int r = 0; r < R; ++r) {
    g[r] = load(gate + r * stride);
    u[r] = load(up + r * stride);
    if (a.delta) {
      const float* delta = a.delta + (row + r) * 2 * a.n + c;
      g[r] = add(g[r], load_some(delta, n));
      u[r] = add(u[r], load_some(delta + a.n, n));
    }
    if (a.bias) {
      g[r] = add(g[r], gate_bias);
      u[r] = add(u[r], up_bias);
    }
  }
  if (a.activation == kSilu) {
    for (int r = 0; r < R; ++r) g[r] = silu(g[r]);
  } else {
    for (int r = 0; r < R; ++r) g[r] = gelu_tanh(g[r]);
  }
  for (int r = 0; r < R; ++r) {
    F8 y = mul(g[r], u[r]);
    if (a.residual) y = add(load_some(a.residual + (row + r) * a.n + c, n), y);
    store_some(a.y + (row + r) * a.n + c, y, n);
  }
}

inline void finish_gated(const LinearArgs& a, int64_t row, int64_t rows, const float* gate, const float* up,
                         int64_t stride, int64_t c) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) gate_rows<4>(a, row + r, gate + r * stride, up + r * stride, stride, c);
  for (; r < rows; ++r) gate_rows<1>(a, row + r, gate + r * stride, up + r * stride, stride, c);
}

}  // namespace LLMOS_ISA
}  // namespace llmos
