// What: the operations of simd.h as plain loops, in the order of the vectors'.
// Invariant: as in simd.h.
// Interface: F8, B32, Acc, Acc8.
#pragma once

#include "scalars.h"

namespace llmos {
namespace LLMOS_ISA {

constexpr bool kVnni = false;

struct F8 { float v[8]; };
struct B32 { uint8_t v[32]; };

#define LLMOS_LANES(expr)                  \
  F8 r;                                    \
  for (int i = 0; i < 8; ++i) r.v[i] = (expr); \
  return r;

inline F8 load(const float* p) { LLMOS_LANES(p[i]) }
inline void store(float* p, F8 a) { memcpy(p, a.v, sizeof a.v); }
inline F8 set1(float f) { LLMOS_LANES(f) }
inline F8 zero() { return set1(0.0f); }
inline F8 add(F8 a, F8 b) { LLMOS_LANES(a.v[i] + b.v[i]) }
inline F8 sub(F8 a, F8 b) { LLMOS_LANES(a.v[i] - b.v[i]) }
inline F8 mul(F8 a, F8 b) { LLMOS_LANES(a.v[i] * b.v[i]) }
inline F8 div(F8 a, F8 b) { LLMOS_LANES(a.v[i] / b.v[i]) }
#ifdef __FP_FAST_FMAF
inline F8 fma(F8 a, F8 b, F8 c) { LLMOS_LANES(__builtin_fmaf(a.v[i], b.v[i], c.v[i])) }
#else
inline F8 fma(F8 a, F8 b, F8 c) { LLMOS_LANES(a.v[i] * b.v[i] + c.v[i]) }
#endif
inline F8 max(F8 a, F8 b) { LLMOS_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
inline F8 min(F8 a, F8 b) { LLMOS_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
inline F8 abs(F8 a) { LLMOS_LANES(bits_to_float(float_to_bits(a.v[i]) & 0x7fffffffu)) }
inline F8 select_less(F8 a, F8 b, F8 x, F8 y) { LLMOS_LANES(a.v[i] < b.v[i] ? x.v[i] : y.v[i]) }
inline F8 round_even(F8 a) { LLMOS_LANES(__builtin_rintf(a.v[i])) }
inline F8 scale_by_power(F8 a, F8 n) {
  LLMOS_LANES(n.v[i] == n.v[i] ? bits_to_float(float_to_bits(a.v[i]) +
                                               (static_cast<uint32_t>(static_cast<int32_t>(n.v[i])) << 23))
                               : n.v[i])
}
inline float f16_to_float(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
  if (exponent) return bits_to_float(sign | ((exponent + 112) << 23) | (fraction << 13));
  float tiny = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // subnormal: fraction * 2^-24
  return sign ? -tiny : tiny;
}
inline F8 load_f16(const void* p) {
  uint16_t h[8];
  memcpy(h, p, sizeof h);
  LLMOS_LANES(f16_to_float(h[i]))
}
inline F8 load_unsigned(const void* p) {
  const uint8_t* b = static_cast<const uint8_t*>(p);
  LLMOS_LANES(static_cast<float>(b[i]))
}
inline F8 load_signed(const void* p) {
  const int8_t* b = static_cast<const int8_t*>(p);
  LLMOS_LANES(static_cast<float>(b[i]))
}
inline F8 load_bf16(const void* p) {
  uint16_t h[8];
  memcpy(h, p, sizeof h);
  LLMOS_LANES(bf16_to_float(h[i]))
}
inline float largest(const F8 v[4]) {
  uint32_t m = 0;
  for (int i = 0; i < 32; ++i) {
    const uint32_t u = float_to_bits(v[i / 8].v[i % 8]) & 0x7fffffffu;
    m = u > m ? u : m;
  }
  return bits_to_float(m);
}
inline void store_codes(int8_t* p, const F8 v[4]) {
  for (int i = 0; i < 32; ++i) p[i] = static_cast<int8_t>(__builtin_rintf(v[i / 8].v[i % 8]));
}
inline void interleave_words(const int8_t* const row[4], int8_t (*out)[4][4]) {
  for (int j = 0; j < 8; ++j)
    for (int r = 0; r < 4; ++r) memcpy(out[j][r], row[r] + 4 * j, 4);
}

inline void pair_sums(const int8_t* q, int16_t whole[2], int16_t first_half[2]) {
  int s[2][2] = {{0, 0}, {0, 0}};
  for (int i = 0; i < 32; ++i) s[i / 16][(i >> 1) & 1] += q[i];
  for (int p = 0; p < 2; ++p) {
    whole[p] = static_cast<int16_t>(s[0][p] + s[1][p]);
    first_half[p] = static_cast<int16_t>(s[0][p]);
  }
}
inline B32 load_bytes(const void* p) {
  B32 r;
  memcpy(r.v, p, 32);
  return r;
}
inline void store_bytes(void* p, B32 a) { memcpy(p, a.v, 32); }
inline B32 mask_bytes(B32 a, int m) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] & m);
  return a;
}
inline B32 either(B32 a, B32 b) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | b.v[i]);
  return a;
}
template <int N>
inline B32 shift_right(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] >> N);
  return a;
}
template <int N>
inline B32 shift_left(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] << N);
  return a;
}
inline B32 repeat4(const void* p) {
  B32 r;
  for (int i = 0; i < 8; ++i) memcpy(r.v + 4 * i, p, 4);
  return r;
}
inline B32 sub_i16(B32 a, B32 b) {
  int16_t x[16], y[16];
  memcpy(x, a.v, 32);
  memcpy(y, b.v, 32);
  for (int i = 0; i < 16; ++i) x[i] = static_cast<int16_t>(x[i] - y[i]);
  memcpy(a.v, x, 32);
  return a;
}

inline B32 flip_sign(B32 a) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] ^ 128);
  return a;
}

inline F8 sum_codes(const B32* u, int n) {
  int32_t s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < n; ++i)
    for (int b = 0; b < 32; ++b) s[b / 4] += u[i].v[b];
  LLMOS_LANES(static_cast<float>(s[i]))
}
inline F8 sum_signed(const B32* u, int n) {
  int32_t s[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < n; ++i)
    for (int b = 0; b < 32; ++b) s[b / 4] += static_cast<int8_t>(u[i].v[b]);
  LLMOS_LANES(static_cast<float>(s[i]))
}

struct Acc { int32_t v[8]; };
inline Acc acc_zero() { return Acc{{0, 0, 0, 0, 0, 0, 0, 0}}; }
inline Acc acc_offset(B32 pair, int offset) {
  int16_t p[2];
  memcpy(p, pair.v, 4);
  Acc a;
  for (int i = 0; i < 8; ++i) a.v[i] = -offset * (p[0] + p[1]);
  return a;
}
inline Acc acc_dot(Acc a, B32 w, B32 x) {
  for (int i = 0; i < 8; ++i) {
    const uint8_t* u = w.v + 4 * i;
    const uint8_t* s = x.v + 4 * i;
    a.v[i] += u[0] * static_cast<int8_t>(s[0]) + u[1] * static_cast<int8_t>(s[1]) + u[2] * static_cast<int8_t>(s[2]) +
              u[3] * static_cast<int8_t>(s[3]);
  }
  return a;
}
inline Acc acc_start(B32 pair) { return acc_offset(pair, -1); }
inline F8 acc_sum(Acc a) { LLMOS_LANES(static_cast<float>(a.v[i])) }
inline F8 acc_sum_nibbles(Acc high, Acc low) { LLMOS_LANES(static_cast<float>(16 * high.v[i] + low.v[i])) }
constexpr bool kSplitBytes = false;
struct Acc8 { int32_t v[8]; };
inline Acc8 acc8_start(B32) { return Acc8{{0, 0, 0, 0, 0, 0, 0, 0}}; }
inline Acc8 acc8_dot(Acc8 a, B32 w, B32 x) {
  for (int i = 0; i < 32; ++i) a.v[i / 4] += static_cast<int8_t>(w.v[i]) * static_cast<int8_t>(x.v[i]);
  return a;
}
inline F8 acc8_sum(Acc8 a) { LLMOS_LANES(static_cast<float>(a.v[i])) }

inline float sum_lanes(F8 a) {
  float s[4];
  for (int i = 0; i < 4; ++i) s[i] = a.v[i] + a.v[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float max_lanes(F8 a) {
  float m = a.v[0];
  for (int i = 1; i < 8; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline int mask_less(F8 a, F8 b) {
  int m = 0;
  for (int i = 0; i < 8; ++i) m |= (a.v[i] < b.v[i]) << i;
  return m;
}
inline F8 select_bits(int bits, F8 x, F8 y) {
  for (int i = 0; i < 8; ++i)
    if (!((bits >> i) & 1)) x.v[i] = y.v[i];
  return x;
}
inline void transpose8(const F8 rows[8], float* out, ptrdiff_t stride) {
  for (int c = 0; c < 8; ++c)
    for (int r = 0; r < 8; ++r) out[c * stride + r] = rows[r].v[c];
}
inline void prefetch(const void*) {}
inline void prefetch_far(const void*) {}
inline void keep_order() {}

#undef LLMOS_LANES

}  // namespace LLMOS_ISA
}  // namespace llmos
