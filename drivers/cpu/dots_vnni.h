// What: dot products of bytes with AVX-512 VNNI, of eight output rows and, in registers of 512 bits, of sixteen.
// Invariant: exact, as in simd.h.
// Interface: Acc and its operations; F16, B64, Acc16: those that the products of two tiles side by side need.
#pragma once

#include "simd_avx2.h"

namespace llmos {
namespace LLMOS_ISA {

constexpr bool kVnni = true;  // four products of bytes and their sum are one instruction, and there are 32 registers

// Eight exact sums: vpdpbusd accumulates four u8 x s8 products straight into 32 bits.
struct Acc { __m256i v; };
inline Acc acc_zero() { return {_mm256_setzero_si256()}; }
inline Acc acc_offset(B32 pair, int offset) {
  return {_mm256_madd_epi16(pair, _mm256_set1_epi16(static_cast<short>(-offset)))};
}
inline Acc acc_start(B32 pair) { return acc_offset(pair, -1); }
inline Acc acc_dot(Acc a, B32 w, B32 x) { return {_mm256_dpbusd_epi32(a.v, w, x)}; }
inline F8 acc_sum(Acc a) { return _mm256_cvtepi32_ps(a.v); }
inline F8 acc_sum_nibbles(Acc high, Acc low) {
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(high.v, 4), low.v));
}
constexpr bool kSplitBytes = false;
// Signed bytes become w + 128, so -128 times the sum of the block's activations is where they start.
inline Acc acc8_start(B32 pair) { return acc_offset(pair, 128); }
inline Acc acc8_dot(Acc a, B32 w, B32 x) { return acc_dot(a, flip_sign(w), x); }
inline F8 acc8_sum(Acc a) { return acc_sum(a); }

// The same for 16 rows: what the products of two tiles side by side need.
using F16 = __m512;
using B64 = __m512i;
inline void store(float* p, F16 v) { _mm512_storeu_ps(p, v); }
inline F16 add(F16 a, F16 b) { return _mm512_add_ps(a, b); }
inline F16 sub(F16 a, F16 b) { return _mm512_sub_ps(a, b); }
inline F16 mul(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 join(F8 low, F8 high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }
inline B64 join(B32 low, B32 high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
inline B64 mask_bytes(B64 a, int m) { return _mm512_and_si512(a, _mm512_set1_epi8(static_cast<char>(m))); }
inline B64 either(B64 a, B64 b) { return _mm512_or_si512(a, b); }
template <int N>
inline B64 shift_right(B64 a) { return _mm512_srli_epi16(a, N); }
template <int N>
inline B64 shift_left(B64 a) { return _mm512_slli_epi16(a, N); }
inline B64 sub_i16(B64 a, B64 b) { return _mm512_sub_epi16(a, b); }
inline F16 sum_codes(const B64* u, int n) {
  __m512i t = u[0];
  for (int i = 1; i < n; ++i) t = _mm512_add_epi8(t, u[i]);
  return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), t, _mm512_set1_epi8(1)));
}
inline F16 sum_signed(const B64* u, int n) {
  __m512i t = _mm512_setzero_si512();
  for (int i = 0; i < n; ++i) t = _mm512_dpbusd_epi32(t, _mm512_set1_epi8(1), u[i]);
  return _mm512_cvtepi32_ps(t);
}
struct Acc16 { __m512i v; };
inline Acc16 acc_offset(B64 pair, int offset) {
  return {_mm512_madd_epi16(pair, _mm512_set1_epi16(static_cast<short>(-offset)))};
}
inline Acc16 acc_dot(Acc16 a, B64 w, B64 x) { return {_mm512_dpbusd_epi32(a.v, w, x)}; }
inline F16 acc_sum(Acc16 a) { return _mm512_cvtepi32_ps(a.v); }
inline Acc16 acc8_start(B64 pair) { return acc_offset(pair, 128); }
inline Acc16 acc8_dot(Acc16 a, B64 w, B64 x) {
  return acc_dot(a, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x);
}
inline F16 acc8_sum(Acc16 a) { return acc_sum(a); }

}  // namespace LLMOS_ISA
}  // namespace llmos
